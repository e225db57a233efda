//! Progress of long work: on standard error, and only where somebody looks at it.

use std::{
    io::{self, IsTerminal as _},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use granary_store::ImportObserver;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often it moves while nothing else happens.
const TICK: Duration = Duration::from_millis(100);

/// Work that takes no longer than this has no progress to show; it would only flicker.
const DELAY: Duration = Duration::from_millis(300);

/// Whether the process shows progress at all.
static SHOWN: OnceLock<bool> = OnceLock::new();

/// Sets whether progress is shown, once and for the whole process.
pub(crate) fn set_shown(quiet: bool) {
    SHOWN.get_or_init(|| !quiet && io::stderr().is_terminal());
}

/// A line that says how much was done of something whose amount is known or not.
pub(crate) struct Progress {
    bar: ProgressBar,
    began: Instant,
    is_drawn: AtomicBool,
    files: AtomicU64,
}

impl Progress {
    /// Bytes, of nobody knows how many, and files.
    pub(crate) fn bytes(message: &'static str) -> Self {
        Self::new(None, "{spinner} {prefix} {bytes}, {msg}{bytes_per_sec}, {elapsed}", message)
    }

    /// Bytes of a number that [`set`](Self::set) tells.
    pub(crate) fn bytes_of(message: &'static str) -> Self {
        Self::new(
            Some(0),
            "{spinner} {prefix} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta}",
            message,
        )
    }

    /// Things of a number that [`set`](Self::set) tells.
    pub(crate) fn count_of(message: &'static str) -> Self {
        Self::new(Some(0), "{spinner} {prefix} {wide_bar} {human_pos}/{human_len}, {eta}", message)
    }

    fn new(len: Option<u64>, template: &str, prefix: &'static str) -> Self {
        let bar =
            ProgressBar::with_draw_target(len, ProgressDrawTarget::hidden()).with_prefix(prefix);
        bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
        let (began, is_drawn) = (Instant::now(), AtomicBool::new(false));
        Self { bar, began, is_drawn, files: AtomicU64::new(0) }
    }

    /// Begins to draw it once the work has turned out to be long.
    fn draw(&self) {
        let is_shown = SHOWN.get().copied().unwrap_or_default();
        if is_shown && self.began.elapsed() >= DELAY && !self.is_drawn.swap(true, Ordering::Relaxed)
        {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(TICK);
        }
    }

    /// So many bytes more are done.
    pub(crate) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.draw();
    }

    /// So many of so many are done.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.draw();
    }

    /// Does `write` while the line is out of the way.
    pub(crate) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

impl ImportObserver for Progress {
    fn data(&self, bytes: u64) {
        self.add(bytes);
    }

    fn file(&self) {
        let files = self.files.fetch_add(1, Ordering::Relaxed) + 1;
        self.draw();
        if self.is_drawn.load(Ordering::Relaxed) {
            self.bar.set_message(format!("{} files, ", HumanCount(files)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A sink that tells how much was written to it.
pub(crate) struct Watched<'a, W> {
    sink: W,
    progress: &'a Progress,
}

impl<'a, W: io::Write> Watched<'a, W> {
    pub(crate) fn new(sink: W, progress: &'a Progress) -> Self {
        Self { sink, progress }
    }
}

impl<W: io::Write> io::Write for Watched<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(buf)?;
        self.progress.add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
