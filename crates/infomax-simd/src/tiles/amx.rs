//! AMX itself: what the processor and Linux say, and the instructions, by inline assembly.
//!
//! Compilers of Rust do not use tiles for anything of their own, so that they keep their contents between these blocks;
//! Linux keeps them when it switches between threads.

use super::{Absent, SUMS, Shape};
use half::bf16;
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};

/// Asks the processor, then Linux for the permission of this process.
#[allow(unused_unsafe)] // Which of the intrinsics are safe depends on the compiler.
pub(super) fn ask() -> Result<(), Absent> {
    // SAFETY: every x86-64 has `cpuid`; leaves that are beyond the highest are not asked.
    let (highest, osxsave) = unsafe { (__cpuid(0).eax, __cpuid(1).ecx >> 27 & 1 == 1) };
    if highest < 0x1d {
        return Err(Absent::Processor);
    }
    // SAFETY: the leaves exist.
    let (features, tile) = unsafe { (__cpuid_count(7, 0).edx, __cpuid_count(0x1d, 1)) };
    // AMX-BF16 and AMX-TILE.
    let wanted = 1 << 22 | 1 << 24;
    if features & wanted != wanted {
        return Err(Absent::Processor);
    }
    if !osxsave {
        return Err(Absent::System);
    }
    let xcr0: u32;
    // SAFETY: OSXSAVE says that the instruction may be used; register 0 always exists.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") xcr0, out("edx") _, options(nomem, nostack)) };
    let kept = 1 << 17 | 1 << 18;
    if xcr0 & kept != kept {
        return Err(Absent::System);
    }
    // Bytes of a row, number of tiles, rows.
    if (tile.ebx & 0xffff, tile.ebx >> 16, tile.ecx & 0xffff) != (64, 8, 16) {
        return Err(Absent::Size);
    }
    const ARCH_PRCTL: i64 = 158;
    const REQUEST: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let answer: i64;
    // SAFETY: the call sets a permission of the process and touches no memory of it; the kernel clobbers two registers.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") REQUEST,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    if answer == 0 { Ok(()) } else { Err(Absent::Refused(-answer)) }
}

/// The 64 bytes that `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config([u8; 64]);

/// # Safety
/// AMX is present and permitted; sizes within a tile.
pub(super) unsafe fn configure(shape: Shape) {
    let mut config = Config([0; 64]);
    config.0[0] = 1;
    // Tiles 0 to 3 hold the sums, 4 and 5 the left operands, 6 and 7 the right ones.
    for tile in 0..8 {
        let (rows, elements) = match tile {
            0..4 => (super::ROWS, shape.columns),
            4..6 => (super::ROWS, shape.pairs),
            _ => (shape.pairs, shape.columns),
        };
        // Pairs of bf16 and f32 have four bytes; 64 at most.
        config.0[16 + 2 * tile] = (4 * elements) as u8;
        config.0[48 + tile] = rows as u8;
    }
    // SAFETY: AMX is present; the configuration is valid, and 64 bytes long.
    unsafe { asm!("ldtilecfg [{}]", in(reg) config.0.as_ptr(), options(nostack, preserves_flags)) };
}

/// # Safety
/// AMX is present.
pub(super) unsafe fn release() {
    // SAFETY: AMX is present.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
}

/// # Safety
/// The tiles of this thread are configured.
#[inline(always)]
pub(super) unsafe fn zero() {
    // SAFETY: the tiles are configured.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, preserves_flags)
        );
    }
}

/// # Safety
/// The tiles of this thread are configured, and the operands valid for their sizes.
#[inline(always)]
pub(super) unsafe fn add(a: [*const bf16; 2], b: [*const bf16; 2], pitch: (usize, usize)) {
    // SAFETY: the tiles are configured, and the caller's operands valid for their rows.
    unsafe {
        asm!(
            "tileloadd tmm6, [{b0} + {right}*1]",
            "tileloadd tmm4, [{a0} + {left}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {right}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {left}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            a0 = in(reg) a[0],
            a1 = in(reg) a[1],
            b0 = in(reg) b[0],
            b1 = in(reg) b[1],
            left = in(reg) pitch.0 * size_of::<bf16>(),
            right = in(reg) pitch.1 * size_of::<bf16>(),
            options(nostack, preserves_flags, readonly)
        );
    }
}

/// # Safety
/// The tiles of this thread are configured.
#[inline(always)]
pub(super) unsafe fn load(from: &[[f32; SUMS]; 4]) {
    // SAFETY: the tiles are configured; each array has 16 rows of 64 bytes.
    unsafe {
        asm!(
            "tileloadd tmm0, [{from} + {row}*1]",
            "tileloadd tmm1, [{from} + {row}*1 + 1024]",
            "tileloadd tmm2, [{from} + {row}*1 + 2048]",
            "tileloadd tmm3, [{from} + {row}*1 + 3072]",
            from = in(reg) from.as_ptr(),
            row = in(reg) 64usize,
            options(nostack, preserves_flags, readonly)
        );
    }
}

/// # Safety
/// The tiles of this thread are configured.
#[inline(always)]
pub(super) unsafe fn store(to: &mut [[f32; SUMS]; 4]) {
    // SAFETY: the tiles are configured; each array has 16 rows of 64 bytes.
    unsafe {
        asm!(
            "tilestored [{to} + {row}*1], tmm0",
            "tilestored [{to} + {row}*1 + 1024], tmm1",
            "tilestored [{to} + {row}*1 + 2048], tmm2",
            "tilestored [{to} + {row}*1 + 3072], tmm3",
            to = in(reg) to.as_mut_ptr(),
            row = in(reg) 64usize,
            options(nostack, preserves_flags)
        );
    }
}
