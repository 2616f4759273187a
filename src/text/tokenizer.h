/* What other files need of the byte-pair tokeniser. */
#ifndef DOJO_TEXT_TOKENIZER_H
#define DOJO_TEXT_TOKENIZER_H

#include <stddef.h>

/* The visible character that GPT-2's files write for a byte, as UTF-8; how many bytes it has. */
size_t dj__byte_letter(unsigned char byte, unsigned char out[2]);

#endif
