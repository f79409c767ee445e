//! An opened adapter: queue, pipelines by their source, and what went wrong since it was opened.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use plan::DeviceError;
use wgpu::{
    BindGroupLayout, BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingType, Buffer, BufferBindingType,
    BufferDescriptor, BufferUsages, ComputePipeline, ComputePipelineDescriptor, DeviceDescriptor,
    ErrorFilter, Features, Limits, PipelineLayout, PipelineLayoutDescriptor, PollType,
    ShaderModuleDescriptor, ShaderRuntimeChecks, ShaderSource, ShaderStages,
};

use crate::adapters::Adapter;
use crate::cache::Cache;
use crate::memory::MAX_RANGES;

pub struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    limits: Limits,
    /// By how many storage buffers a kernel names: bind group and pipeline.
    layouts: Vec<(BindGroupLayout, PipelineLayout)>,
    pipelines: Mutex<HashMap<String, ComputePipeline>>,
    cache: Option<Cache>,
    lost: Said,
    trouble: Said,
}

/// What the first of some callbacks said.
type Said = Arc<Mutex<Option<String>>>;

/// What is used where an adapter offers it.
const WELCOME: Features = Features::PIPELINE_CACHE.union(Features::TIMESTAMP_QUERY);

/// Waits for a future of wgpu; all but those of buffer maps are there at once on native systems.
pub fn ready<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

/// Data behind a lock is valid even if a thread that held it panicked: every writer replaces it whole.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device that allows buffers and bindings of these bytes: the one opened before, or a new one.
pub fn open(adapter: &Adapter, buffer_bytes: u64, binding_bytes: u64) -> Result<Arc<Gpu>, String> {
    let baseline = Limits::defaults();
    let limits = Limits {
        max_buffer_size: buffer_bytes.max(baseline.max_buffer_size.min(adapter.limits.max_buffer_size)),
        max_storage_buffer_binding_size: binding_bytes.max(
            baseline.max_storage_buffer_binding_size.min(adapter.limits.max_storage_buffer_binding_size),
        ),
        ..baseline
    };
    let mut opened = lock(&adapter.opened);
    let suffices = |gpu: &Arc<Gpu>| {
        gpu.limits.max_buffer_size >= limits.max_buffer_size
            && gpu.limits.max_storage_buffer_binding_size >= limits.max_storage_buffer_binding_size
            && gpu.trouble().is_none()
    };
    if let Some(gpu) = opened.as_ref().filter(|gpu| suffices(gpu)) {
        return Ok(gpu.clone());
    }
    let descriptor = DeviceDescriptor {
        label: Some("host"),
        required_features: adapter.inner.features() & WELCOME,
        required_limits: limits,
        ..Default::default()
    };
    let (device, queue) =
        ready(adapter.inner.request_device(&descriptor)).map_err(|error| error.to_string())?;
    let cache = adapter.cache.as_ref().and_then(|folder| Cache::open(folder, &adapter.inner, &device));
    let gpu = Arc::new(Gpu::new(device, queue, cache));
    *opened = Some(gpu.clone());
    Ok(gpu)
}

impl Gpu {
    fn new(device: wgpu::Device, queue: wgpu::Queue, cache: Option<Cache>) -> Gpu {
        let (lost, trouble) = (Said::default(), Said::default());
        let told = lost.clone();
        device.set_device_lost_callback(move |reason, message| {
            let said = if message.is_empty() { format!("{reason:?}") } else { message };
            lock(&told).get_or_insert(said);
        });
        let failed = trouble.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&failed).get_or_insert(error.to_string());
        }));
        let layouts = (0..=MAX_RANGES).map(|count| layout(&device, count)).collect();
        let limits = device.limits();
        Gpu { device, queue, limits, layouts, pipelines: Mutex::default(), cache, lost, trouble }
    }

    /// Why the device is gone, if it is.
    pub fn lost(&self) -> Option<String> {
        lock(&self.lost).clone()
    }

    /// What went wrong outside any call that could tell.
    pub fn trouble(&self) -> Option<String> {
        self.lost().map(|reason| format!("it was lost: {reason}")).or_else(|| lock(&self.trouble).clone())
    }

    pub fn layout(&self, storage_buffers: usize) -> &BindGroupLayout {
        &self.layouts[storage_buffers].0
    }

    /// Calls into wgpu whose errors belong to the caller.
    pub fn checked<T>(&self, call: impl FnOnce(&wgpu::Device) -> T) -> Result<T, wgpu::Error> {
        let filters = [ErrorFilter::Validation, ErrorFilter::OutOfMemory, ErrorFilter::Internal];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let output = call(&self.device);
        let mut first = None;
        for scope in scopes.into_iter().rev() {
            first = ready(scope.pop()).or(first);
        }
        match first {
            Some(error) => Err(error),
            None => Ok(output),
        }
    }

    /// Makes sure that there is a pipeline for every source (with its number of storage buffers), on all cores. The
    /// first that does not compile is told by its place.
    pub fn compile(&self, sources: &[(&str, usize)]) -> Result<(), (usize, String)> {
        let known: HashSet<String> = lock(&self.pipelines).keys().cloned().collect();
        let mut seen = HashSet::new();
        let missing: Vec<usize> = (0..sources.len())
            .filter(|index| !known.contains(sources[*index].0) && seen.insert(sources[*index].0))
            .collect();
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        let share = missing.len().div_ceil(threads).max(1);
        let failures: Mutex<Vec<(usize, String)>> = Mutex::default();
        std::thread::scope(|scope| {
            for part in missing.chunks(share) {
                let failures = &failures;
                scope.spawn(move || {
                    for index in part {
                        let (source, count) = sources[*index];
                        match self.checked(|device| self.build(device, source, count)) {
                            Ok(pipeline) => {
                                lock(&self.pipelines).insert(source.to_string(), pipeline);
                            }
                            Err(error) => lock(failures).push((*index, error.to_string())),
                        }
                    }
                });
            }
        });
        if let Some(cache) = self.cache.as_ref().filter(|_| !missing.is_empty()) {
            cache.keep();
        }
        let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        failures.into_iter().min().map_or(Ok(()), Err)
    }

    fn build(&self, device: &wgpu::Device, source: &str, storage_buffers: usize) -> ComputePipeline {
        let descriptor = ShaderModuleDescriptor { label: None, source: ShaderSource::Wgsl(source.into()) };
        // SAFETY: `Plan::validate` bounds every address that a kernel forms, loops count to constants or to the number
        // of set bits, and the printers guard every divisor.
        let module =
            unsafe { device.create_shader_module_trusted(descriptor, ShaderRuntimeChecks::unchecked()) };
        device.create_compute_pipeline(&ComputePipelineDescriptor {
            label: None,
            layout: Some(&self.layouts[storage_buffers].1),
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: self.cache.as_ref().map(|cache| &cache.pipelines),
        })
    }

    pub fn pipeline(&self, source: &str) -> Option<ComputePipeline> {
        lock(&self.pipelines).get(source).cloned()
    }

    /// Blocks until everything submitted has run.
    pub fn wait(&self) -> Result<(), String> {
        self.poll(PollType::wait_indefinitely())
    }

    pub fn poll(&self, until: PollType) -> Result<(), String> {
        let polled = self.device.poll(until).map_err(|error| error.to_string());
        // What went wrong first says more than what followed from it.
        self.trouble().map_or(polled.map(|_| ()), Err)
    }
}

/// A buffer of the device; `what` names it in errors.
pub fn buffer(gpu: &Gpu, what: &str, bytes: usize, usage: BufferUsages) -> Result<Buffer, DeviceError> {
    let size = bytes.next_multiple_of(4).max(4) as u64;
    let descriptor = BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
    let out_of_memory = |_| DeviceError::OutOfMemory { what: what.to_string(), bytes };
    gpu.checked(|device| device.create_buffer(&descriptor)).map_err(out_of_memory)
}

fn layout(device: &wgpu::Device, storage_buffers: usize) -> (BindGroupLayout, PipelineLayout) {
    let entry = |binding: usize, ty: BufferBindingType| BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: ShaderStages::COMPUTE,
        ty: BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let storage = (0..storage_buffers).map(|at| entry(at, BufferBindingType::Storage { read_only: false }));
    let entries: Vec<_> = storage.chain([entry(storage_buffers, BufferBindingType::Uniform)]).collect();
    let group =
        device.create_bind_group_layout(&BindGroupLayoutDescriptor { label: None, entries: &entries });
    let pipeline = device.create_pipeline_layout(&PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    (group, pipeline)
}
