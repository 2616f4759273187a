# Thin front of CMake + Ninja. Every target installs missing system packages first (scripts/setup).
BUILD ?= build
ASAN  ?= build-asan
GEN   := $(shell command -v ninja >/dev/null 2>&1 && echo "-G Ninja")

.PHONY: all setup configure demo test check bench asan fuzz fmt tidy clean help

all: setup            ## build ./build/dojo
	@cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null
	@cmake --build $(BUILD)

setup:                ## install missing system packages
	@scripts/setup

demo: all             ## make drives, train on them, evaluate, write an overlay video
	@scripts/demo $(BUILD)/dojo

test: all asan        ## every test: release build, then AddressSanitizer + UndefinedBehaviorSanitizer
	@scripts/check
	@cd $(BUILD) && ctest --output-on-failure -j 2

asan: setup           ## build and test under AddressSanitizer + UndefinedBehaviorSanitizer
	@cmake -S . -B $(ASAN) -G Ninja -DCMAKE_BUILD_TYPE=Debug -DDOJO_SANITIZE=ON >/dev/null
	@cmake --build $(ASAN)
	@cd $(ASAN) && ctest --output-on-failure -j 2

bench: all            ## timings beside peers; nothing here passes or fails
	@bench/run $(BUILD)/dojo

fuzz: setup           ## build the libFuzzer targets into build-fuzz (clang)
	@CC=clang cmake -S . -B build-fuzz -G Ninja -DCMAKE_BUILD_TYPE=Debug -DDOJO_FUZZ=ON >/dev/null
	@cmake --build build-fuzz

fmt: setup            ## format the sources in place
	@git ls-files '*.c' '*.h' '*.cu' | xargs clang-format -i

tidy: all             ## clang-tidy over the library
	@git ls-files 'src/*.c' | xargs -P 2 -n 4 clang-tidy --quiet -p $(BUILD)

clean:
	@rm -rf $(BUILD) $(ASAN) build-fuzz

help:                 ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12
