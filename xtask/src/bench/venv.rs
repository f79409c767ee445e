//! The Python that peers run in: a virtual environment with PyTorch, made once, and MKL's faster kernels.
//!
//! Without Python or without a network there are no peers, and that is said; our side is measured all the same.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::output;

/// Wheels without GPU libraries, and where they are not to be had, any.
const SOURCES: [&[&str]; 2] = [&["torch", "--index-url", "https://download.pytorch.org/whl/cpu"], &["torch"]];

/// MKL asks this function whether it runs on a processor of its maker, and takes its AVX2 kernels if not.
const ANSWER: &str = "int mkl_serv_intel_cpu_true(void) { return 1; }\n";

/// glibc keeps what is freed, in huge pages: a fresh page costs more than what is written to it.
const TUNABLES: &str = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184:\
                        glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456";

/// How peers are started.
pub struct Python {
    program: PathBuf,
    /// The library that is loaded before MKL; None where no C compiler made it.
    answer: Option<PathBuf>,
    threads: usize,
    /// Whether threads sleep at barriers. Those that spin there are the faster ones as long as they have their cores for
    /// themselves, and several times slower where they have not.
    patient: bool,
    pub torch: String,
}

impl Python {
    /// Uses or makes the environment in `folder`; the error says why there is none.
    pub fn find(folder: &Path, threads: usize, patient: bool) -> Result<Python, String> {
        let program = folder.join("bin/python");
        if !program.is_file() {
            output::note(&format!("making {} (once)", folder.display()));
            run(Command::new("python3").args(["-m", "venv"]).arg(folder), "python3 -m venv")?;
        }
        let version = || {
            let print = "import torch; print(torch.__version__)";
            let output = Command::new(&program).args(["-c", print]).stderr(Stdio::null()).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
        };
        let mut torch = version();
        for source in SOURCES {
            if torch.is_none() {
                output::note(&format!("installing {} (once)", source.join(" ")));
                let pip = ["-m", "pip", "install", "--quiet"];
                // The next source is tried; what failed is told at the end.
                let _ = run(Command::new(&program).args(pip).args(source), "pip install");
                torch = version();
            }
        }
        let torch = torch.ok_or("PyTorch could not be installed")?;
        Ok(Python { answer: answer(folder), program, threads, patient, torch })
    }

    /// None where MKL's faster kernels are asked for and cannot be had.
    pub fn command(&self, avx512: bool) -> Option<Command> {
        let mut command = Command::new(&self.program);
        command.env("OMP_NUM_THREADS", self.threads.to_string()).env("PYTHONDONTWRITEBYTECODE", "1");
        if self.patient {
            command.env("OMP_WAIT_POLICY", "passive");
        }
        command.args(["-W", "ignore"]);
        if avx512 {
            command.env("LD_PRELOAD", self.answer.as_ref()?).env("GLIBC_TUNABLES", TUNABLES);
        }
        Some(command)
    }
}

fn answer(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("mkl_answer.c"), folder.join("libmkl_answer.so"));
    if !library.is_file() {
        std::fs::write(&source, ANSWER).ok()?;
        run(Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source), "gcc").ok()?;
    }
    Some(library)
}

fn run(command: &mut Command, name: &str) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or("it failed");
    if output.status.success() { Ok(()) } else { Err(format!("{name}: {last}")) }
}
