//! A dispatch that is ready to be encoded: its pipeline, what it is bound to, and how many workgroups.

use wgpu::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, BindingResource, Buffer, BufferBinding, BufferSize,
    ComputePass, ComputePipeline,
};

use crate::gpu::Gpu;
use crate::memory::Memory;
use crate::wgsl::Dispatch;

/// Uniforms start at multiples of this.
pub const UNIFORM_ALIGNMENT: usize = 256;

pub struct Step {
    /// Index of its launch.
    pub launch: usize,
    pub pipeline: ComputePipeline,
    group: BindGroup,
    pub groups: [u32; 3],
}

impl Step {
    pub fn encode(&self, pass: &mut ComputePass) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        let [x, y, z] = self.groups;
        pass.dispatch_workgroups(x, y, z);
    }
}

/// The buffers that steps are bound to.
pub struct Builder<'l> {
    pub gpu: &'l Gpu,
    pub state: &'l Buffer,
    pub arena: &'l Buffer,
    pub scratch: &'l Buffer,
    pub uniforms: &'l Buffer,
}

impl Builder<'_> {
    /// The step of a dispatch whose words are the uniforms' part with number `at`.
    pub fn step(&self, launch: usize, dispatch: &Dispatch, at: usize) -> Result<Step, String> {
        let binding = |buffer, start: usize, bytes: usize| {
            BindingResource::Buffer(BufferBinding {
                buffer,
                offset: start as u64,
                size: BufferSize::new(bytes as u64),
            })
        };
        let storage = dispatch.ranges.iter().map(|range| {
            let buffer = match range.memory {
                Memory::State => self.state,
                Memory::Arena => self.arena,
                Memory::Scratch => self.scratch,
            };
            binding(buffer, range.start, range.end - range.start)
        });
        let uniform = binding(self.uniforms, at * UNIFORM_ALIGNMENT, dispatch.words.len() * 4);
        let entries: Vec<BindGroupEntry> = storage
            .chain([uniform])
            .enumerate()
            .map(|(binding, resource)| BindGroupEntry { binding: binding as u32, resource })
            .collect();
        let layout = self.gpu.layout(dispatch.ranges.len());
        let descriptor = BindGroupDescriptor { label: None, layout, entries: &entries };
        let group = self
            .gpu
            .checked(|device| device.create_bind_group(&descriptor))
            .map_err(|error| error.to_string())?;
        let pipeline = self.gpu.pipeline(&dispatch.source).ok_or("its kernel was not compiled")?;
        Ok(Step { launch, pipeline, group, groups: dispatch.groups })
    }
}
