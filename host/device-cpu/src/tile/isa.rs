//! The step interpreter, built once per instruction set; the machine's best is picked at run time.

use super::apply::{Operands, apply};
use super::program::{Step, Tile};
use super::{random, reduce, transfer};
use crate::abreast::FUSES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    Portable,
    Avx2,
    Avx512,
}

impl Isa {
    /// Those this machine can run, the best last.
    pub fn available() -> Vec<Isa> {
        let mut list = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                list.push(Isa::Avx2);
            }
            let has_avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if has_avx512 {
                list.push(Isa::Avx512);
            }
        }
        list
    }

    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "AVX2",
            Isa::Avx512 => "AVX-512",
        }
    }

    /// Runs steps over a tile.
    ///
    /// # Safety
    /// `self` comes from [`Isa::available`]. The tile lies in the program's shape, its views in live scratch, and its
    /// bindings are the slots of a validated launch that no other tile writes at the same elements.
    pub unsafe fn run(self, steps: &[Step], tile: &mut Tile) {
        // SAFETY: the caller's.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => run_avx512(steps, tile),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => run_avx2(steps, tile),
                _ => run_steps::<1, FUSES>(steps, tile),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn run_avx512(steps: &[Step], tile: &mut Tile) {
    // SAFETY: the caller's.
    unsafe { run_steps::<4, true>(steps, tile) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(steps: &[Step], tile: &mut Tile) {
    // SAFETY: the caller's.
    unsafe { run_steps::<1, true>(steps, tile) }
}

/// `N` is how many groups of 16 lanes pass through a long formula abreast: as many chains as the registers hold. With
/// vectors of 8 or 4 lanes one group is two or four chains already. `FUSES` is of [`Abreast`](crate::abreast::Abreast).
#[inline(always)]
unsafe fn run_steps<const N: usize, const FUSES: bool>(steps: &[Step], tile: &mut Tile) {
    let program = tile.program;
    for step in steps {
        // SAFETY: the caller's; `compile` placed every value a step names and gave each address its binding.
        unsafe {
            match *step {
                Step::Load { out, binding, address, class, in_place } => {
                    let at = &program.addresses[address];
                    let home = tile.home(out);
                    tile.views[out] =
                        transfer::load_tile(tile, at, tile.bindings[binding], home, class, in_place);
                }
                Step::Gather { out, binding, address, class, index, stride, limit } => {
                    let at = &program.addresses[address];
                    let (out, index) = (tile.views[out], tile.views[index]);
                    let memory = tile.bindings[binding];
                    transfer::gather_tile(tile, at, memory, out, class, index, (stride, limit));
                }
                Step::Iota { out, address, class, dtype } => {
                    transfer::iota_tile(tile, &program.addresses[address], tile.views[out], class, dtype);
                }
                Step::Apply { out, op, args, dtype, to, class } => {
                    let args = args.map(|arg| tile.views[arg]);
                    let extent = tile.extent(class);
                    apply::<N, FUSES>(op, &Operands { out: tile.views[out], args, dtype, to, extent });
                }
                Step::RandomWords { out, address, args, class } => {
                    let extent = tile.extent(class);
                    random::random_words::<N>(tile, out, &program.addresses[address], args, extent);
                }
                Step::Prefetch { value, part } => transfer::prefetch_next(tile, value, part),
                Step::PrefetchStore { binding, address, part } => {
                    let at = &program.addresses[address];
                    transfer::prefetch_store(tile, at, tile.bindings[binding], part);
                }
                Step::Accumulate { out, arg, fold } => reduce::accumulate(tile, out, arg, fold),
                Step::FoldLanes { out, fold } => reduce::fold_lanes(tile, out, fold),
                Step::AccumulateRows { out, arg, fold } => reduce::accumulate_rows(tile, out, arg, fold),
                Step::Store { binding, address, value } => {
                    let at = &program.addresses[address];
                    transfer::store_tile(tile, at, tile.bindings[binding], tile.views[value]);
                }
            }
        }
    }
}
