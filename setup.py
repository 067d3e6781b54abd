"""The build of the compiled extension; the metadata stands in pyproject.toml.

VAE_FAST_NATIVE=auto (the default) builds it where a C++ compiler and torch are there, and else installs the
package without it, saying why; 0 never builds it, and 1 fails where it cannot be built. VAE_FAST_CUDA=auto|0|1
says the same of the kernels for GPUs, a library of its own, where nvcc and a torch with CUDA are there
(setup_cuda.py), and VAE_FAST_FRONT=auto|0|1 of the front of each, a small library for this Python and this torch
alone; VAE_FAST_FRONT=only builds nothing else.
VAE_FAST_WERROR=1 makes warnings errors, VAE_FAST_SANITIZE=address,undefined or thread builds for those sanitizers.
CXX, CFLAGS, LDFLAGS and MAX_JOBS are heeded.
"""

import functools
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))  # a build by pip does not look here

import setup_cuda  # noqa: E402
import setup_operators  # noqa: E402

# The oldest PyTorch whose ABI the binary asks for; TORCH_TARGET_VERSION holds each part of it in a byte.
TORCH_MINIMUM = (2, 11)
TARGET = f"0x{TORCH_MINIMUM[0]:02x}{TORCH_MINIMUM[1]:02x}{0:012x}"

# No contraction: a multiply-add is fused where the source says so, and the noise's bits depend on it.
COMPILE = [
    "-std=c++17",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wno-psabi",
]
COMPILE += ["-g0", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-Wall", "-Wextra"]
LINK = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"] if sys.platform == "linux" else []
# Kernels: instructions are reordered before registers are given out too, so that long chains of them overlap.
# Clang does so anyway, and would say that it ignores the flag.
SCHEDULED = ["-fschedule-insns", "-Wno-ignored-optimization-argument"]
# csrc/cpu is compiled once for each: one binary runs on all, and picks the best at load. They are those of the
# processor that is compiled for, which need not be the one that compiles.
INSTRUCTION_SETS = {"baseline": []}
if sysconfig.get_platform().endswith(("x86_64", "amd64")):
    INSTRUCTION_SETS |= {"v3": ["-march=x86-64-v3"], "v4": ["-march=x86-64-v4"]}


# No contraction here either, and none of the options that round otherwise.
NVCC = ["-std=c++17", "-O3", "--fmad=false", "-DVF_LEAN=1", "-Xfatbin=-compress-all"]
NVCC += ["-Xcompiler=-fPIC,-fvisibility=hidden"]
# Of the sources in csrc/, those of one device only.
OF_CPU = {"device_cpu.cpp", "isa.cpp", "schemas.cpp"}
OF_CUDA = {"device_cuda.cpp", "rescale.cpp"}
LONG = (
    *("rsample_kl", "negative_binomial_log_prob", "gaussian_kl", "gaussian_log_prob"),
    *("student_t_log_prob", "rsample_log_prob", "bernoulli_log_prob", "rsample"),
)


# The fronts' sources beside csrc/front: they are those of a device too, on torch's own headers, which are C++20.
OF_FRONT = ("operands.cpp", "device_cpu.cpp")
OF_CUDA_FRONT = ("operands.cpp", "device_cuda.cpp")


class CannotBuild(Exception):
    pass


def torch_minor():
    """Such as "2_13"; empty where there is no torch."""
    try:
        return "_".join(importlib.metadata.version("torch").split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return ""


def digest(*parts):
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def layout():
    """What the kernels' arguments look like in memory: the front is for libraries of the same."""
    return digest(*((ROOT / "csrc" / name).read_bytes() for name in ("views.h", "kernels.h")))


@functools.cache
def compiler_version(compiler):
    return subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout


def torch_headers(*folders):
    """The flags for headers in these folders, the first of them torch's.

    Messages that a library keeps name a file of torch's from there on, so that its bytes are the same wherever it
    was built.
    """
    where = [part for folder in folders for part in ("-isystem", str(folder))]
    return [*where, f"-ffile-prefix-map={folders[0].parent.parent}/="]


def torch_folder():
    """torch's folder, found without importing it where it is too old or not there at all."""
    try:
        import torch
    except ImportError as error:
        raise CannotBuild(
            f"the build sees no torch ({error}): install torch first, then vae_fast with --no-build-isolation"
        ) from None
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < TORCH_MINIMUM:
        raise CannotBuild(f"torch {torch.__version__} is older than {TORCH_MINIMUM[0]}.{TORCH_MINIMUM[1]}")
    return Path(torch.__file__).parent


def cuda_toolkit():
    """The toolkit for the torch that is there. Raises setup_cuda.Missing."""
    import torch

    toolkit = setup_cuda.toolkit()
    setup_cuda.check_torch(torch, toolkit)
    return toolkit


class Build(build_ext):
    """Compiles csrc/*.cpp once a device, csrc/cpu/*.cpp for every instruction set, csrc/cuda for every GPU."""

    cuda_reason = front_reason = cuda_front_reason = ""

    def run(self):
        wanted = os.environ.get("VAE_FAST_NATIVE") or "auto"
        try:
            if wanted == "0":
                raise CannotBuild("the package was installed with VAE_FAST_NATIVE=0")
            super().run()
            reason = ""
        except Exception as error:
            if wanted == "1":
                raise
            # Whatever went wrong, the package works without the extension.
            reason = str(error) if isinstance(error, CannotBuild) else f"its build failed: {error}"
            self.extensions.clear()
            for line in ("", "vae_fast is installed WITHOUT its compiled kernels:", reason, ""):
                print(f"*** {line}", file=sys.stderr)
        self.record(reason)

    def record(self, reason):
        """What the package says of a missing library: a line for the CPU's, the GPU's, the front of each."""
        folder = ROOT / "vae_fast" if self.inplace else Path(self.build_lib) / "vae_fast"
        folder.mkdir(parents=True, exist_ok=True)
        reasons = (reason, self.cuda_reason, self.front_reason, self.cuda_front_reason)
        lines = [" ".join(text.split()) for text in reasons]
        (folder / "_build.txt").write_text("\n".join(lines).rstrip("\n") + "\n")

    def build_extension(self, ext):
        is_front = ext.name not in ("vae_fast._cpu", "vae_fast._cuda")
        if not is_front and os.environ.get("VAE_FAST_FRONT") == "only":
            self.extensions.remove(ext)
        elif ext.name == "vae_fast._cpu":
            self.build_cpu(ext)
        elif ext.name == "vae_fast._cuda":
            self.cuda_reason = self.try_to_build(ext, self.build_cuda, "VAE_FAST_CUDA", "its CUDA kernels")
        elif ext.name.startswith("vae_fast._front_cuda"):
            self.cuda_front_reason = self.try_to_build(
                ext, self.build_cuda_front, "VAE_FAST_FRONT", "its front for CUDA", setup_cuda.Missing
            )
        else:
            self.front_reason = self.try_to_build(ext, self.build_front, "VAE_FAST_FRONT", "its compiled front")

    def try_to_build(self, ext, build, variable, what, left_out=()):
        """Builds what the package works without. Returns why it could not.

        ``left_out``: errors that say that there is nothing to build it for.
        """
        wanted = os.environ.get(variable) or "auto"
        try:
            if wanted == "0":
                raise CannotBuild(f"the package was installed with {variable}=0")
            build(ext)
            return ""
        except Exception as error:
            if wanted in ("1", "only") and not isinstance(error, left_out):
                raise
            known = isinstance(error, (CannotBuild, setup_cuda.Missing))
            reason = str(error) if known else f"its build failed: {error}"
            self.extensions.remove(ext)
            print(f"*** vae_fast is built without {what}: {reason}", file=sys.stderr)
            return reason

    def build_extensions(self):
        for ext in list(self.extensions):
            self.build_extension(ext)

    def flags(self):
        """Compiler and linker flags that hold for every source."""
        flags, link = list(COMPILE), list(LINK)
        if os.environ.get("VAE_FAST_WERROR") == "1":
            flags.append("-Werror")
        if sanitize := os.environ.get("VAE_FAST_SANITIZE"):
            flags += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-g", "-O1", "-fno-omit-frame-pointer"]
            flags.remove("-D_FORTIFY_SOURCE=2")
            link.append(f"-fsanitize={sanitize}")
        return flags, link

    def compile_all(self, jobs, compile_one):
        with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", 0)) or os.cpu_count()) as pool:
            return [o for compiled in pool.map(compile_one, jobs) for o in compiled]

    def build_cuda(self, ext):
        folder, toolkit = torch_folder(), cuda_toolkit()
        targets = setup_cuda.targets(toolkit)
        flags, link = self.flags()
        include = torch_headers(folder / "include", toolkit.home / "include")
        own = [
            *include,
            f"-DTORCH_TARGET_VERSION={TARGET}",
            "-DVF_DISPATCH_KEY=CUDA",
            "-DVF_ISA=cuda",
            "-DUSE_CUDA",
            f"-I{self.build_temp}",
            f'-DVF_LAYOUT="{layout()}"',
        ]
        setup_operators.write(Path(self.build_temp))
        out = Path(self.build_temp) / "cuda"
        out.mkdir(parents=True, exist_ok=True)

        def compile_one(source):
            relative = str(source.relative_to(ROOT))
            if source.suffix == ".cpp":
                return self.compiler.compile([relative], output_dir=str(out), extra_postargs=[*flags, *own])
            target = str(out / f"{source.stem}.o")
            command = [toolkit.nvcc, *NVCC, *targets, "-DVF_ISA=cuda", "-c", relative, "-o", target]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            print(done.stdout + done.stderr, end="", file=sys.stderr)
            if done.returncode != 0:
                raise CannotBuild(
                    f"nvcc does not compile {relative}: {(done.stderr or done.stdout).strip()[-500:]}"
                )
            return [target]

        # The longest to compile first, in their order.
        kernels = sorted(
            ROOT.glob("csrc/cuda/*.cu"), key=lambda path: LONG.index(path.stem) if path.stem in LONG else len(LONG)
        )
        host = [path for path in ROOT.glob("csrc/*.cpp") if path.name not in OF_CPU]
        self.compiler.link_shared_object(
            self.compile_all([*kernels, *host, *ROOT.glob("csrc/cuda/*.cpp")], compile_one),
            self.get_ext_fullpath(ext.name),
            libraries=["torch", "torch_cpu", "torch_cuda", "c10", "cudart"],
            library_dirs=[str(folder / "lib"), *toolkit.libraries],
            extra_postargs=link,
            target_lang="c++",
        )

    def build_front(self, ext, of=OF_FRONT, subfolder="front", options=(), libraries=(), library_dirs=()):
        torch = torch_folder()
        flags, link = self.flags()
        python = Path(sysconfig.get_paths()["include"])
        own = torch_headers(torch / "include", torch / "include/torch/csrc/api/include", python)
        own += ["-std=c++20", "-DVF_FRONT", "-DVF_ISA=front", f'-DVF_LAYOUT="{layout()}"', "-Icsrc", *options]
        own += [f"-DVF_MODULE={ext.name.rpartition('.')[2]}"]
        out = str(Path(self.build_temp) / subfolder)
        sources = [*ROOT.glob("csrc/front/*.cpp"), *(ROOT / "csrc" / name for name in of)]

        def compile_one(source):
            relative = str(source.relative_to(ROOT))
            return self.compiler.compile([relative], output_dir=out, extra_postargs=[*flags, *own])

        self.compiler.link_shared_object(
            self.compile_all(sources, compile_one),
            self.get_ext_fullpath(ext.name),
            libraries=["torch_python", "torch", "torch_cpu", "c10", *libraries],
            library_dirs=[str(torch / "lib"), *library_dirs],
            extra_postargs=link,
            target_lang="c++",
        )

    def build_cuda_front(self, ext):
        """Where the CUDA kernels are, which it calls."""
        reason = self.cuda_reason
        if os.environ.get("VAE_FAST_CUDA") == "0":
            reason = "the package was installed with VAE_FAST_CUDA=0"
        if reason:
            raise setup_cuda.Missing(reason)
        toolkit = cuda_toolkit()
        options = ("-DUSE_CUDA", "-isystem", str(toolkit.home / "include"))
        libraries = ("torch_cuda", "c10_cuda", "cudart")
        self.build_front(ext, OF_CUDA_FRONT, "front_cuda", options, libraries, toolkit.libraries)

    def build_cpu(self, ext):
        torch = torch_folder()
        if not list(ROOT.glob("csrc/*.cpp")):
            raise CannotBuild("its sources, csrc/, are not there")
        flags, link = self.flags()
        include = torch_headers(torch / "include")
        keys = ["-DVF_DISPATCH_KEY=CPU", "-DVF_SPARSE_DISPATCH_KEY=SparseCsrCPU"]
        own = [*include, f"-DTORCH_TARGET_VERSION={TARGET}", *keys, f"-I{self.build_temp}"]
        own += [f'-DVF_LAYOUT="{layout()}"']
        setup_operators.write(Path(self.build_temp))
        jobs = [(source, "", own) for source in ROOT.glob("csrc/*.cpp") if source.name not in OF_CUDA]
        for name, march in INSTRUCTION_SETS.items():
            chosen = [f"-DVF_ISA={name}", *march, *SCHEDULED]
            jobs += [(source, name, chosen) for source in ROOT.glob("csrc/cpu/*.cpp")]

        headers = [
            path.read_bytes() for folder in ("csrc", "csrc/cpu") for path in sorted(ROOT.glob(f"{folder}/*.h"))
        ]

        def compile_one(job):
            source, folder, own = job
            relative = str(source.relative_to(ROOT))
            if source.parent.name != "cpu":
                return self.compiler.compile([relative], output_dir=self.build_temp, extra_postargs=[*flags, *own])
            # Kernels are made of nothing but what stands here, and take minutes: kept for the next build.
            compiler = getattr(self.compiler, "compiler_so_cxx", self.compiler.compiler_so)
            command = [*compiler, *flags, *own]
            known = [compiler_version(command[0]), " ".join(command).encode(), source.read_bytes(), *headers]
            kept = ROOT / "build" / "kernels" / f"{source.stem}-{folder}-{digest(*known)}.o"
            if not kept.is_file():
                out = str(Path(self.build_temp) / folder)
                (made,) = self.compiler.compile([relative], output_dir=out, extra_postargs=[*flags, *own])
                kept.parent.mkdir(parents=True, exist_ok=True)
                part = kept.with_suffix(f".{os.getpid()}")
                shutil.copyfile(made, part)
                part.replace(kept)
            return [str(kept)]

        self.compiler.link_shared_object(
            self.compile_all(jobs, compile_one),
            self.get_ext_fullpath(ext.name),
            libraries=["torch", "torch_cpu", "c10"],
            library_dirs=[str(torch / "lib")],
            extra_postargs=link,
            target_lang="c++",
        )


class Python(build_py):
    def run(self):
        super().run()
        # A library of an earlier build in place is not this build's.
        for stale in Path(self.build_lib).glob("vae_fast/*.so") if not self.editable_mode else ():
            stale.unlink()


class Wheel(bdist_wheel):
    """Tagged cp310-abi3 with the extension, py3-none-any without."""

    def run(self):
        self.run_command("build_ext")
        self.root_is_pure = not self.distribution.ext_modules
        super().run()

    def get_tag(self):
        python, abi, tag = super().get_tag()
        return ("py3", "none", "any") if self.root_is_pure else ("cp310", "abi3", tag)


def extensions():
    found = [Extension(f"vae_fast.{name}", sources=[], py_limited_api=True) for name in ("_cpu", "_cuda")]
    if minor := torch_minor():
        found += [Extension(f"vae_fast._front_{kind}{minor}", sources=[]) for kind in ("", "cuda_")]
    return found


if __name__ == "__main__":
    setup(
        ext_modules=extensions(),
        cmdclass={"build_ext": Build, "build_py": Python, "bdist_wheel": Wheel},
    )
