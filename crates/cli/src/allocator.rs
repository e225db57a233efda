//! How memory is allocated: glibc, where it is the C library, is told to keep buffers for the
//! next use, and not to keep one thread's from another.

/// Sets the allocator up. To be called before there are threads.
pub(crate) fn set_up() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::set_up();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::{env, thread};

    use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int};

    /// Environment variables that say what is set here: whoever sets one knows better.
    const SETTINGS: [&str; 4] =
        ["MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"];

    /// What is larger gets pages of its own, which go back when it is freed. Frames and pieces of
    /// NARs are not: to map them anew, page by page, was a quarter of the CPU for sending stored
    /// frames.
    const OWN_PAGES_BYTES: c_int = 16 << 20;

    /// What may be free at the end of an arena before it goes back.
    const KEPT_BYTES: c_int = 64 << 20;

    pub(super) fn set_up() {
        if SETTINGS.iter().any(|name| env::var_os(name).is_some()) {
            return;
        }
        // By itself it makes up to eight for each core, for threads that come upon each other.
        // Buffers go from thread to thread here, and what is free in one arena is of no use to
        // the others. With one for each core, though, threads of two cores get from each other what
        // is in the other one's cache.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        set(M_ARENA_MAX, (2 * cores).try_into().unwrap_or(c_int::MAX));
        set(M_MMAP_THRESHOLD, OWN_PAGES_BYTES);
        set(M_TRIM_THRESHOLD, KEPT_BYTES);
    }

    #[expect(unsafe_code, reason = "no crate has a safe function for it")]
    fn set(setting: c_int, value: c_int) {
        // SAFETY: it takes two numbers, looks at nothing else, and may be called at any time.
        let was_set = unsafe { libc::mallopt(setting, value) };
        // If not, it goes on as it would have.
        debug_assert_eq!(was_set, 1, "{setting}");
    }
}
