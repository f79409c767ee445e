//! One anonymous mapping: the State slab, the arena and the workers' scratch are each one of these.
//!
//! Page faults cost more than the work of a step in virtual machines (docs: devices.md), so a map asks for huge
//! pages, is touched once when it is made, and is given back only when it is dropped.

use std::ptr::NonNull;

use plan::DeviceError;

use crate::pool::{Pool, TaskPanicked};

/// Huge pages of x86-64 and of most arm64 kernels; also the alignment of `Map::start`.
const HUGE_PAGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// Zeroed memory, aligned to a huge page.
pub struct Map {
    mapping: NonNull<u8>,
    mapped: usize,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a Map owns its pages; it has no thread affinity.
unsafe impl Send for Map {}

impl Map {
    /// Mapped and touched. `what` names the memory in the error.
    pub fn new(what: &str, bytes: usize, pool: &mut Pool) -> Result<Map, DeviceError> {
        let out_of_memory = || DeviceError::OutOfMemory { what: what.to_string(), bytes };
        let rounded = bytes.max(1).checked_next_multiple_of(HUGE_PAGE).ok_or_else(out_of_memory)?;
        let mapped = rounded.checked_add(HUGE_PAGE).ok_or_else(out_of_memory)?;
        // SAFETY: a fresh anonymous mapping aliases nothing.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(out_of_memory());
        }
        let mapping = NonNull::new(address.cast::<u8>()).ok_or_else(out_of_memory)?;
        let skip = mapping.as_ptr().align_offset(HUGE_PAGE);
        // SAFETY: skip < HUGE_PAGE, by which the mapping is longer than `rounded`.
        let start = unsafe { mapping.add(skip) };
        #[cfg(target_os = "linux")]
        // SAFETY: the range lies in the mapping made above; advice changes no content, and its failure is harmless.
        unsafe {
            libc::madvise(start.as_ptr().cast(), rounded, libc::MADV_HUGEPAGE);
        }
        let map = Map { mapping, mapped, start, bytes };
        map.touch(pool).map_err(|TaskPanicked| out_of_memory())?;
        Ok(map)
    }

    /// Writes to every page that is used, on the threads that will work there: the faults are the larger part of a
    /// start.
    fn touch(&self, pool: &mut Pool) -> Result<(), TaskPanicked> {
        let (pages, bytes) = (Pages(self.start), self.bytes);
        pool.run(bytes.div_ceil(HUGE_PAGE), &|_, task| {
            pages.touch(task * HUGE_PAGE..bytes.min((task + 1) * HUGE_PAGE));
        })
    }

    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as self and is initialised (zero pages); writers hold `&mut Cpu`.
        unsafe { std::slice::from_raw_parts(self.start(), self.bytes) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` excludes other users.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.bytes) }
    }
}

/// Start of a map that is being touched.
struct Pages(NonNull<u8>);

// SAFETY: the threads that share a map while it is made touch disjoint ranges of it.
unsafe impl Sync for Pages {}

impl Pages {
    fn touch(&self, range: std::ops::Range<usize>) {
        for offset in range.step_by(PAGE) {
            // SAFETY: offset lies below the map's bytes, which its maker has mapped and shows to nobody yet.
            unsafe { self.0.add(offset).write_volatile(0) };
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is the one mmap returned; nothing borrows from a dropped Map.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapped) };
    }
}
