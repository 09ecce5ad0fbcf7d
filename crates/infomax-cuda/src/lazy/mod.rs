//! CUDA's libraries at their first use in place of the start of the program.
//!
//! Candle links the driver and CUDA's libraries dynamically, so that a program would not even start on a machine that
//! has none: the loader of the system looks for `libcuda.so.1` before `main`. Here each of their functions that is
//! called (`names.rs`) is defined in the program itself, as a jump through a slot. The first call finds the library and
//! the function, as the system's loader does where functions are bound late, and keeps the address in the slot; later
//! calls cost one indirect jump. As the program defines all functions that it calls, the linker leaves the libraries
//! out (`--as-needed`, which rustc passes). What is not there answers with an error code of its library, of which
//! `explain` makes words.
//!
//! A function that is missing from the list is linked as before: the program then needs its library to start, and
//! nothing else changes. On other systems and processors all libraries are linked as before.

mod names;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// One library of CUDA.
struct Library {
    /// What it is for, in messages.
    title: &'static str,
    /// Its file names; the first that is found is taken.
    files: &'static [&'static CStr],
    /// What a function returns that is not there.
    absent: extern "C" fn() -> c_int,
    handle: AtomicPtr<c_void>,
}

const fn library(
    title: &'static str,
    files: &'static [&'static CStr],
    absent: extern "C" fn() -> c_int,
) -> Library {
    Library { title, files, absent, handle: AtomicPtr::new(std::ptr::null_mut()) }
}

macro_rules! major {
    ($name:literal) => {
        const {
            let name = concat!("lib", $name, ".so.", env!("INFOMAX_CUDA_MAJOR"), "\0");
            match CStr::from_bytes_with_nul(name.as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            }
        }
    };
}

/// In the order of the numbers in `names.rs`.
static LIBRARIES: [Library; 8 + cfg!(test) as usize] = [
    library("the driver", &[c"libcuda.so.1"], no_driver),
    library("CUDA runtime", &[major!("cudart"), c"libcudart.so"], no_runtime),
    library("cuBLAS", &[major!("cublas"), c"libcublas.so"], no_cublas),
    library("cuBLASLt", &[major!("cublasLt"), c"libcublasLt.so"], no_cublas),
    library("cuRAND", &[c"libcurand.so.10", c"libcurand.so"], no_curand),
    library("cuDNN", &[c"libcudnn.so.9", c"libcudnn.so"], no_cudnn),
    library("NVRTC", &[major!("nvrtc"), c"libnvrtc.so"], no_nvrtc),
    library("NCCL", &[c"libnccl.so.2", c"libnccl.so"], no_nccl),
    #[cfg(test)]
    library("the C library", &[c"no-such-library.so", c"libc.so.6"], no_cudnn),
];

// Each is a value of the enumeration that the functions of the library return.
/// `CUDA_ERROR_SHARED_OBJECT_INIT_FAILED`: no driver, or one without the function.
extern "C" fn no_driver() -> c_int {
    303
}
/// `cudaErrorInsufficientDriver`.
extern "C" fn no_runtime() -> c_int {
    35
}
/// `CUBLAS_STATUS_NOT_INITIALIZED`.
extern "C" fn no_cublas() -> c_int {
    1
}
/// `CURAND_STATUS_NOT_INITIALIZED`.
extern "C" fn no_curand() -> c_int {
    101
}
/// `CUDNN_STATUS_NOT_INITIALIZED`.
extern "C" fn no_cudnn() -> c_int {
    1001
}
/// `NVRTC_ERROR_INTERNAL_ERROR`.
extern "C" fn no_nvrtc() -> c_int {
    11
}
/// `ncclSystemError`.
extern "C" fn no_nccl() -> c_int {
    2
}

/// Loads a library, or finds it loaded; a null pointer where it is not there. It may run before `main`: constructors of
/// compiled kernels call the runtime. So nothing of the standard library's state is used.
fn handle(library: &Library) -> *mut c_void {
    let known = library.handle.load(Ordering::Acquire);
    if !known.is_null() {
        return known;
    }
    for file in library.files {
        // SAFETY: the name ends in a zero. Constructors of NVIDIA's libraries run, as they would at the start of the
        // program. Two threads that come here at once get the same handle.
        let found = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_LAZY | libc::RTLD_GLOBAL) };
        if !found.is_null() {
            library.handle.store(found, Ordering::Release);
            return found;
        }
    }
    std::ptr::null_mut()
}

/// Finds a function, keeps its address in the slot, and returns it.
///
/// # Safety
/// Called by the code below only: `number` is an index into [`LIBRARIES`], `name` ends in a zero, `slot` is the slot of
/// the function.
#[unsafe(no_mangle)]
unsafe extern "C" fn infomax_cuda_find(
    number: usize,
    name: *const c_char,
    slot: *const AtomicUsize,
) -> usize {
    let library = &LIBRARIES[number];
    let handle = handle(library);
    let found = match handle.is_null() {
        true => std::ptr::null_mut(),
        // SAFETY: the handle is one of `dlopen` that is never closed.
        false => unsafe { libc::dlsym(handle, name) },
    };
    let address = match found.is_null() {
        true => library.absent as *const () as usize,
        false => found as usize,
    };
    // SAFETY: the slot is eight aligned bytes that are written here only.
    unsafe { &*slot }.store(address, Ordering::Release);
    address
}

// The way of a first call. The stack holds the number of the library, the name, the slot and the return address of the
// caller. All registers that can hold arguments are kept, and the function gets the stack as its caller made it.
core::arch::global_asm!(
    ".text",
    ".p2align 4",
    ".globl infomax_cuda_bind",
    ".hidden infomax_cuda_bind",
    ".type infomax_cuda_bind, @function",
    "infomax_cuda_bind:",
    "push rax",
    "push rdi",
    "push rsi",
    "push rdx",
    "push rcx",
    "push r8",
    "push r9",
    "sub rsp, 136",
    "movups [rsp], xmm0",
    "movups [rsp + 16], xmm1",
    "movups [rsp + 32], xmm2",
    "movups [rsp + 48], xmm3",
    "movups [rsp + 64], xmm4",
    "movups [rsp + 80], xmm5",
    "movups [rsp + 96], xmm6",
    "movups [rsp + 112], xmm7",
    "mov rdi, [rsp + 192]",
    "mov rsi, [rsp + 200]",
    "mov rdx, [rsp + 208]",
    "call {find}",
    "mov r11, rax",
    "movups xmm0, [rsp]",
    "movups xmm1, [rsp + 16]",
    "movups xmm2, [rsp + 32]",
    "movups xmm3, [rsp + 48]",
    "movups xmm4, [rsp + 64]",
    "movups xmm5, [rsp + 80]",
    "movups xmm6, [rsp + 96]",
    "movups xmm7, [rsp + 112]",
    "add rsp, 136",
    "pop r9",
    "pop r8",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "pop rax",
    "add rsp, 24",
    "jmp r11",
    ".size infomax_cuda_bind, . - infomax_cuda_bind",
    find = sym infomax_cuda_find,
);

unsafe extern "C" {
    fn infomax_cuda_bind();
}

/// The libraries that the program can use, each with whether it is there. It also keeps the code above in the program,
/// whatever the linker: what calls this is linked before the bindings that call the libraries.
pub(crate) fn libraries() -> Vec<crate::driver::Library> {
    // SAFETY: nothing is called; the address is only looked at.
    let kept = !std::hint::black_box(infomax_cuda_bind as *const ()).is_null();
    let used = |library: &&Library| match library.title {
        "cuDNN" => cfg!(feature = "cudnn"),
        "NCCL" => cfg!(feature = "nccl"),
        _ => kept,
    };
    let named = |library: &Library| {
        let file = library.files.first().map_or_else(String::new, |file| file.to_string_lossy().into_owned());
        crate::driver::Library { title: library.title, file, found: !handle(library).is_null() }
    };
    LIBRARIES.iter().filter(used).map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_at_its_first_call_with_its_arguments() {
        // The C library stands for one of CUDA's.
        unsafe extern "C" {
            fn infomax_cuda_test_snprintf(to: *mut c_char, len: usize, form: *const c_char, ...) -> c_int;
            fn infomax_cuda_test_missing(a: u64, b: f64) -> c_int;
        }
        let mut text = [0u8; 256];
        for _ in 0..2 {
            // SAFETY: the form fits the arguments: six and more in registers, in vector registers and on the stack.
            let length = unsafe {
                infomax_cuda_test_snprintf(
                    text.as_mut_ptr().cast(),
                    text.len(),
                    c"%d %d %d %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %d %d %d".as_ptr(),
                    1 as c_int,
                    2 as c_int,
                    3 as c_int,
                    1.5f64,
                    2.5f64,
                    3.5f64,
                    4.5f64,
                    5.5f64,
                    6.5f64,
                    7.5f64,
                    8.5f64,
                    9.5f64,
                    4 as c_int,
                    5 as c_int,
                    6 as c_int,
                )
            };
            let said = CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap();
            assert_eq!(said, "1 2 3 1.5 2.5 3.5 4.5 5.5 6.5 7.5 8.5 9.5 4 5 6");
            assert_eq!(length as usize, said.len());
            // SAFETY: it takes any arguments, and looks at none.
            assert_eq!(unsafe { infomax_cuda_test_missing(1, 2.0) }, 1001);
        }
    }
    #[test]
    fn libraries_are_listed_with_whether_they_are_there() {
        let all = libraries();
        let of = |title: &str| all.iter().find(|library| library.title == title);
        assert!(of("the C library").is_some_and(|library| library.found));
        assert_eq!(of("the driver").map(|library| library.file.as_str()), Some("libcuda.so.1"));
        assert!(of("cuBLAS").is_some_and(|library| library.file.starts_with("libcublas.so.")));
        assert_eq!(of("cuDNN").is_some(), cfg!(feature = "cudnn"));
        assert_eq!(of("NCCL").is_some(), cfg!(feature = "nccl"));
    }
}
