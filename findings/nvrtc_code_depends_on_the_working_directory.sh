#!/usr/bin/env bash
# NVRTC 13.0.88, the run-time compiler with which cuDNN makes some kernels of convolutions: the intermediate code of
# one source, with the same options and without debug information, is the same from run to run, but another one in
# another working directory; its PTX is the same everywhere. CUDA's cache of kernels has the intermediate code in its
# key: on an H200 workers of Ray Train, whose directory has the session's name, put the same kernels of cuDNN into it
# again in each run, and found none. The compiler alone, as here, needs no GPU.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "nvidia-cuda-nvrtc==13.0.88"
library=$(find "$folder/venv" -name "libnvrtc.so.13")
cat > "$folder/compile.py" << 'PYTHON'
import ctypes
import os
import sys

nvrtc = ctypes.CDLL(sys.argv[1])
SOURCE = b'extern "C" __global__ void twice(float *x) { x[threadIdx.x] *= 2.0f; }'


def made(directory, options, size_of, copy_of):
    os.makedirs(directory, exist_ok=True)
    os.chdir(directory)
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), SOURCE, b"twice.cu", 0, None, None) == 0
    assert nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)) == 0
    assert size_of(program, ctypes.byref(size)) == 0
    code = ctypes.create_string_buffer(size.value)
    assert copy_of(program, code) == 0
    return code.raw


def intermediate(directory):
    options = [b"--gpu-architecture=compute_90", b"-dlto"]
    return made(directory, options, nvrtc.nvrtcGetLTOIRSize, nvrtc.nvrtcGetLTOIR)


def ptx(directory):
    return made(directory, [b"--gpu-architecture=compute_90"], nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)


one, other = f"{sys.argv[2]}/one", f"{sys.argv[2]}/two"
major, minor = ctypes.c_int(), ctypes.c_int()
nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
again = intermediate(one) == intermediate(one)
elsewhere = intermediate(one) == intermediate(other)
same_ptx = ptx(one) == ptx(other)
print(f"NVRTC {major.value}.{minor.value} - intermediate code: the same again: {again}, in another directory: {elsewhere}")
print("PTX: the same in another directory:", same_ptx)
sys.exit(not (again and not elsewhere and same_ptx))
PYTHON
LD_LIBRARY_PATH=$(dirname "$library") "$folder/venv/bin/python" "$folder/compile.py" "$library" "$folder"
