//! Where tensors lie in memory: kept for the next step when they are freed, and aligned to lines of the cache.

use infomax_simd::LINE;
use std::alloc::{GlobalAlloc, Layout, System};

/// Tells the allocator to keep freed memory instead of returning it to the operating system.
///
/// A training step allocates and frees the same large buffers again and again. glibc gives blocks of
/// megabytes back at once, so each step pays for fresh zeroed pages: measured on a small ResNet, 45 % of the
/// processor time. Programs call this once at their start; the memory of the process then stays at its peak.
///
/// Returns whether anything was changed: glibc on Linux only. Other allocators keep memory on their own, or
/// have their own settings.
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `mallopt` may be called at any time from any thread; both values are valid for their
        // parameters (no blocks from `mmap`; -1 turns trimming off).
        unsafe { libc::mallopt(libc::M_MMAP_MAX, 0) == 1 && libc::mallopt(libc::M_TRIM_THRESHOLD, -1) == 1 }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// The allocator of the system, whose blocks of a page and more start on a line of the cache (64 bytes).
///
/// A vector of AVX-512 and a row of a tile of AMX are a line long. The allocators of most systems align to 16 bytes, so
/// that every one of them lies on two lines, and each read and write counts twice; Candle has no say in where its tensors
/// lie. The results are the same bits. A program chooses it once:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: infomax_kernels::LineAligned = infomax_kernels::LineAligned;
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LineAligned;

/// Bytes of the smallest block that is aligned: below, little is computed and more of it would be wasted.
const ALIGNED: usize = 4096;

impl LineAligned {
    /// The layout that the system is asked for: a function of the caller's, so that a block is freed as it was made.
    fn layout(layout: Layout) -> Layout {
        if layout.size() < ALIGNED {
            return layout;
        }
        // Only sizes near the end of the address space do not fit with their alignment.
        layout.align_to(LINE).unwrap_or(layout)
    }
}

// SAFETY: every call is passed to the allocator of the system, with a layout that has the caller's size, at least the
// caller's alignment, and is the same for the same block.
unsafe impl GlobalAlloc for LineAligned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller.
        unsafe { System.alloc(Self::layout(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller.
        unsafe { System.alloc_zeroed(Self::layout(layout)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by the caller; the block was made with this layout.
        unsafe { System.dealloc(block, Self::layout(layout)) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: by the caller: `size`, rounded up to the alignment, is no more than `isize::MAX`.
        let wanted = Self::layout(unsafe { Layout::from_size_align_unchecked(size, layout.align()) });
        let have = Self::layout(layout);
        // SAFETY: by the caller; the block was made with `have`, and the new one has room for what both hold.
        unsafe {
            if wanted.align() == have.align() {
                return System.realloc(block, have, size);
            }
            let new = System.alloc(wanted);
            if !new.is_null() {
                std::ptr::copy_nonoverlapping(block, new, size.min(layout.size()));
                System.dealloc(block, have);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIGNED, LINE, LineAligned};
    use std::alloc::{GlobalAlloc as _, Layout};

    #[test]
    fn large_blocks_start_on_a_line_and_keep_their_contents() {
        for align in [1, 4, 16, 128] {
            let layout = |size| Layout::from_size_align(size, align).unwrap();
            let sizes = [1, 100, ALIGNED - 1, ALIGNED, 3 * ALIGNED + 5, 70_000, ALIGNED - 1, 7, 200_000, 64];
            // SAFETY: blocks of at least one byte, written before they are read, grown and freed with their layouts.
            unsafe {
                let mut block = LineAligned.alloc(layout(sizes[0]));
                block.write(17);
                for pair in sizes.windows(2) {
                    block = LineAligned.realloc(block, layout(pair[0]), pair[1]);
                    assert!(!block.is_null());
                    let line = if pair[1] >= ALIGNED { LINE.max(align) } else { align };
                    assert_eq!(block as usize % line, 0, "{} of alignment {align}", pair[1]);
                    let kept = std::slice::from_raw_parts(block, pair[0].min(pair[1]));
                    assert_eq!(kept[0], 17);
                    assert!(kept[1..].iter().enumerate().all(|(i, x)| *x == (i % 251) as u8));
                    for i in 1..pair[1] {
                        block.add(i).write(((i - 1) % 251) as u8);
                    }
                }
                LineAligned.dealloc(block, layout(sizes[sizes.len() - 1]));
                let zeros = LineAligned.alloc_zeroed(layout(2 * ALIGNED));
                assert_eq!(zeros as usize % LINE, 0);
                assert!(std::slice::from_raw_parts(zeros, 2 * ALIGNED).iter().all(|x| *x == 0));
                LineAligned.dealloc(zeros, layout(2 * ALIGNED));
            }
        }
    }

    #[test]
    fn large_blocks_still_come_and_go() {
        let changed = super::keep_freed_memory();
        assert_eq!(changed, cfg!(all(target_os = "linux", target_env = "gnu")));
        for _ in 0..3 {
            let block = vec![1u8; 300 << 20];
            assert_eq!(block[block.len() - 1], 1);
        }
    }
}
