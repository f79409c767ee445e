//! From the name of a device to the device: the one place where the engine knows which there are.

use std::path::Path;

use device_cpu::Cpu;
use device_wgpu::{Adapter, Wgpu};
use plan::{Device, DeviceCaps, DeviceError, PlanSet};

use crate::Error;
use crate::config::DeviceName;

/// A device that has nothing loaded yet.
pub struct Opened {
    pub device: Box<dyn Device>,
    pub caps: DeviceCaps,
    /// What its kernels are printed for; none on the CPU.
    adapter: Option<Adapter>,
}

/// Opens a device. `Auto` is a graphics card where there is one, else the CPU.
pub fn open(name: DeviceName, threads: usize) -> Result<Opened, Error> {
    let adapter = match name {
        DeviceName::Wgpu(number) => {
            let chosen = device_wgpu::choose(number.map(usize::from));
            Some(chosen.map_err(|reason| Error::said(format!("--device {name}: {reason}")))?)
        }
        DeviceName::Auto => device_wgpu::automatic(),
        DeviceName::Cpu | DeviceName::Interpreter => None,
    };
    Ok(match adapter {
        Some(adapter) => {
            let adapter = adapter.with_cache(crate::plugins::kernels());
            let device = Box::new(Wgpu::new(adapter.clone()));
            Opened { device, caps: Wgpu::caps(), adapter: Some(adapter) }
        }
        None => Opened { device: Box::new(Cpu::new(threads)), caps: Cpu::caps(), adapter: None },
    })
}

impl Opened {
    /// Whether what it holds lies in the memory of the host.
    pub fn uses_host_memory(&self) -> bool {
        self.adapter.as_ref().is_none_or(|adapter| adapter.is_software)
    }

    /// Writes the text of each kernel to `PLAN/kernels/NNN.wgsl`, headed by the launch that uses it first.
    pub fn dump(&self, set: &PlanSet, folder: &Path) -> Result<(), DumpError> {
        let Some(adapter) = &self.adapter else { return Ok(()) };
        for (number, source) in device_wgpu::sources(set, adapter.tiles())?.iter().enumerate() {
            let folder = folder.join(&source.plan).join("kernels");
            std::fs::create_dir_all(&folder)?;
            let text = format!("// {}\n{}", source.label, source.text);
            std::fs::write(folder.join(format!("{number:03}.wgsl")), text)?;
        }
        Ok(())
    }
}

/// Why kernels could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error(transparent)]
    Print(#[from] DeviceError),
    #[error(transparent)]
    Write(#[from] std::io::Error),
}

/// What a graphics device of this machine is, and the name that asks for it.
pub struct Listed {
    pub name: String,
    pub what: String,
    /// Why `--device auto` does not take it; none where it does.
    pub unused: Option<&'static str>,
}

/// The adapters that wgpu finds.
pub fn adapters() -> Vec<Listed> {
    let mut is_taken = false;
    let found = device_wgpu::adapters().into_iter().enumerate();
    found
        .map(|(number, adapter)| {
            let unused = match (adapter.is_software, is_taken) {
                (true, _) => Some("it computes on the CPU, where --device cpu is faster; used when named"),
                (false, true) => Some("another comes first; used when named"),
                (false, false) => None,
            };
            is_taken |= unused.is_none();
            Listed { name: format!("wgpu:{number}"), what: adapter.describe(), unused }
        })
        .collect()
}
