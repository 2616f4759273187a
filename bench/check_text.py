#!/usr/bin/env python3
"""Language models beside Hugging Face's transformers: the same files, the same logits.

    python3 bench/check_text.py build/dojo

GPT-2 and Llama networks with random weights, written by transformers, are imported; logits of a random
text must agree to 1e-4 in f32. Then they are exported, loaded there again, and compared once more.
What is written token by token with the cache (likeliest token) must be what transformers writes. Needs
torch, transformers and safetensors. Not needed by `make test`.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, AutoModelForCausalLM


def networks(full):
    gpt2 = dict(n_positions=96, n_embd=96, n_layer=3, n_head=4, vocab_size=501)
    llama = dict(max_position_embeddings=96, hidden_size=96, intermediate_size=250, num_hidden_layers=3,
                 num_attention_heads=6, vocab_size=501)
    yield "gpt2", GPT2LMHeadModel(GPT2Config(**gpt2, initializer_range=0.3))
    yield "gpt2 untied", GPT2LMHeadModel(GPT2Config(**gpt2, n_inner=70, tie_word_embeddings=False))
    yield "llama", LlamaForCausalLM(LlamaConfig(**llama, initializer_range=0.3))
    yield "llama grouped", LlamaForCausalLM(
        LlamaConfig(**llama, num_key_value_heads=2, tie_word_embeddings=True, rms_norm_eps=1e-5,
                    rope_parameters={"rope_type": "default", "rope_theta": 500000.0}))
    yield "llama biases", LlamaForCausalLM(LlamaConfig(**llama, attention_bias=True, mlp_bias=True))
    if full:
        yield "gpt2 124M", GPT2LMHeadModel(GPT2Config())


def run(*args):
    p = subprocess.run(args, capture_output=True, text=True)
    if p.returncode:
        sys.exit(f"{' '.join(args)}: {p.stderr}")
    return p.stdout


def main():
    a = argparse.ArgumentParser()
    a.add_argument("dojo")
    a.add_argument("--full", action="store_true", help="GPT-2 124M, too")
    a = a.parse_args()
    worst = 0
    torch.manual_seed(1)
    for name, model in networks(a.full):
        model = model.eval()
        with torch.no_grad():
            for k, p in model.named_parameters():
                if k.endswith("bias") or "norm" in k or "ln_" in k:
                    p.add_(0.2 * torch.randn_like(p))  # zeros and ones would hide mistakes
        vocabulary, length = model.config.vocab_size, min(96, model.config.max_position_embeddings)
        ids = torch.randint(vocabulary, (1, length))
        with tempfile.TemporaryDirectory() as d:
            theirs, ours, back = (os.path.join(d, x) for x in ("hf", "run", "back"))
            text, out = os.path.join(d, "ids.txt"), os.path.join(d, "logits.safetensors")
            open(text, "w").write(" ".join(map(str, ids[0].tolist())))
            model.save_pretrained(theirs)
            run(a.dojo, "text", "import", theirs, "--out", ours)
            run(a.dojo, "text", "score", ours, text, "--ids", "--precision", "f32", "--logits", out)
            with torch.no_grad():
                want = model(ids).logits[0]
            got = load_file(out)["logits"]
            e = ((got - want).abs().max() / want.abs().max()).item()
            run(a.dojo, "text", "export", ours, "--out", back)
            again = AutoModelForCausalLM.from_pretrained(back).eval()
            with torch.no_grad():
                r = ((again(ids).logits[0] - want).abs().max() / want.abs().max()).item()
            prompt = ids[:, :length // 3]
            wrote = json.loads(run(a.dojo, "text", "generate", ours, "--ids", "--precision", "f32", "--prompt",
                                   " ".join(map(str, prompt[0].tolist())), "--n", "20", "--temperature", "0",
                                   "--json"))["ids"]
            with torch.no_grad():
                theirs = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20,
                                        do_sample=False, eos_token_id=None, pad_token_id=0)[0, prompt.shape[1]:]
            same = wrote == theirs.tolist()
        worst = max(worst, e, r)
        print(f"{name:14} logits {e:.1e} of the largest ({want.abs().max():.1f}), there again {r:.1e}, "
              f"{'the same' if same else 'ANOTHER'} continuation")
        if not same:
            worst = 1
    print("good" if worst <= 1e-4 else "BAD")
    sys.exit(worst > 1e-4)


main()
