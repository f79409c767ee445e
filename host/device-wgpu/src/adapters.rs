//! The adapters of this machine: which there are, and which one a name means.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use wgpu::{Backends, DeviceType, Instance, InstanceDescriptor, Limits};

use crate::gpu::{Gpu, lock, ready};
use crate::wgsl::Tiles;

/// Something that executes WGSL: a graphics card, or a program that pretends to be one.
#[derive(Clone)]
pub struct Adapter {
    pub name: String,
    /// Vulkan, Metal or DX12.
    pub backend: String,
    /// Name and version of the driver, as far as it tells them.
    pub driver: String,
    /// Whether it computes on the CPU.
    pub is_software: bool,
    pub(crate) inner: wgpu::Adapter,
    pub(crate) limits: Limits,
    pub(crate) tiles: Tiles,
    /// Where compiled kernels are kept between runs.
    pub(crate) cache: Option<PathBuf>,
    /// The device opened last, which others share as long as its limits suffice.
    pub(crate) opened: Arc<Mutex<Option<Arc<Gpu>>>>,
}

/// Looked for once: it takes as long as a short run, and what one user opened serves the next.
static FOUND: LazyLock<Vec<Adapter>> = LazyLock::new(find);

/// Every adapter: discrete cards first, software last. Its place in this list is its number.
pub fn adapters() -> Vec<Adapter> {
    FOUND.clone()
}

fn find() -> Vec<Adapter> {
    let instance = Instance::new(InstanceDescriptor {
        backends: Backends::VULKAN | Backends::METAL | Backends::DX12,
        ..InstanceDescriptor::new_without_display_handle()
    });
    let mut found = ready(instance.enumerate_adapters(Backends::all()));
    found.sort_by_key(|adapter| match adapter.get_info().device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    });
    found.into_iter().map(Adapter::new).collect()
}

/// The adapter with a number, or without one the first that is hardware.
pub fn choose(number: Option<usize>) -> Result<Adapter, String> {
    let mut found = adapters();
    let names: Vec<String> = found
        .iter()
        .enumerate()
        .map(|(number, adapter)| format!("wgpu:{number} is {}", adapter.describe()))
        .collect();
    let all = match names.is_empty() {
        true => {
            "no adapter was found; on Linux a Vulkan driver is needed (vulkaninfo lists them)".to_string()
        }
        false => names.join("; "),
    };
    let place = match number {
        Some(number) => {
            (number < found.len()).then_some(number).ok_or_else(|| format!("no wgpu:{number}: {all}"))
        }
        None => found
            .iter()
            .position(|adapter| !adapter.is_software)
            .ok_or_else(|| format!("no hardware adapter, and software is used only when named: {all}")),
    };
    Ok(found.swap_remove(place?))
}

/// The adapter to take where none was named: hardware, if there is any. Asking drivers loads them all, the software ones
/// too (60 MB and a tenth of a second), so a machine without a graphics device is not asked.
pub fn automatic() -> Option<Adapter> {
    has_hardware().then(|| choose(None).ok()).flatten()
}

/// Whether this machine may have a graphics device.
fn has_hardware() -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    // NVIDIA's driver, the Linux subsystem of Windows, and drivers of phones have files of their own.
    let own = ["/dev/nvidia0", "/dev/dxg", "/dev/kgsl-3d0", "/dev/mali0"];
    own.iter().any(|path| Path::new(path).exists())
        || std::fs::read_dir("/dev/dri").is_ok_and(|mut entries| entries.next().is_some())
}

impl Adapter {
    fn new(inner: wgpu::Adapter) -> Adapter {
        let info = inner.get_info();
        let is_software = info.device_type == DeviceType::Cpu;
        Adapter {
            name: info.name,
            backend: format!("{:?}", info.backend),
            driver: [info.driver, info.driver_info].join(" ").trim().to_string(),
            is_software,
            limits: inner.limits(),
            tiles: if is_software { Tiles::Direct } else { Tiles::Shared },
            cache: None,
            inner,
            opened: Arc::default(),
        }
    }

    /// As if the adapter allowed bindings and buffers of so many bytes at most, to see what happens on a smaller one.
    pub fn limited(mut self, binding_bytes: u64, buffer_bytes: u64) -> Adapter {
        self.limits.max_storage_buffer_binding_size = binding_bytes;
        self.limits.max_buffer_size = buffer_bytes;
        self.opened = Arc::default();
        self
    }

    /// With the other form of matrix products than the adapter's kind asks for.
    pub fn with_tiles(mut self, tiles: Tiles) -> Adapter {
        self.tiles = tiles;
        self
    }

    /// With a folder of the user's alone, where compiled kernels are kept between runs.
    pub fn with_cache(mut self, folder: Option<PathBuf>) -> Adapter {
        self.cache = folder;
        self
    }

    /// Takes the device away from whoever has it open, as if the card had been pulled out: for tests.
    #[doc(hidden)]
    pub fn lose(&self) {
        if let Some(gpu) = lock(&self.opened).as_ref() {
            gpu.device.destroy();
        }
    }

    /// The form of matrix products.
    pub fn tiles(&self) -> Tiles {
        self.tiles
    }

    /// Name, driver, and whether it is software.
    pub fn describe(&self) -> String {
        let kind = if self.is_software { ", software" } else { "" };
        format!("{} ({}, {}{kind})", self.name, self.backend, self.driver)
    }
}
