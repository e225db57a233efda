//! How memory is allocated.

/// Bounds what the allocator keeps for itself.
///
/// The C library of GNU gives threads that come upon each other arenas of their own, up to eight
/// for each core, and what is free in one is of no use to the others. The threads here pass
/// buffers on all the time: with an arena for each core they take less than half of the memory,
/// and no more time. To be called before there are threads. `MALLOC_ARENA_MAX` stands above it.
pub(crate) fn set_up() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        bound_arenas(cores.try_into().unwrap_or(libc::c_int::MAX));
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no crate has a safe function for it")]
fn bound_arenas(arenas: libc::c_int) {
    // SAFETY: it takes two numbers, and looks at nothing else. It may be called at any time.
    let was_set = unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    // If not, there are more arenas, as anywhere else.
    debug_assert_eq!(was_set, 1);
}
