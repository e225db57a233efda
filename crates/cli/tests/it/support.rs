//! Running the binary.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use granary_castore::{BlobDigest, BlobService as _};
use granary_client::Client;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Time that anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// The time in which a daemon has to stop.
pub(crate) const STOP_TIME: Duration = Duration::from_secs(10);

/// A home of its own, with nothing in it yet.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// The binary, with this home's data directory as its default and no environment else.
    pub(crate) fn granary<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = bare(self.directory.path());
        command.env("GRANARY_DATA_DIR", self.data_dir()).args(args);
        command
    }

    /// Runs it to its end.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.granary(args).output().expect("the binary can be run")
    }

    /// Runs it, which must succeed, and returns its standard output.
    pub(crate) fn output<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Vec<u8> {
        succeeded(self.run(args))
    }

    /// As [`output`](Self::output), as text without the last newline.
    pub(crate) fn text<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        let output = String::from_utf8(self.output(args)).expect("text");
        output.strip_suffix('\n').map(str::to_owned).unwrap_or(output)
    }

    /// Runs it, which must fail, and returns exit code and standard error.
    pub(crate) fn failure<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> (i32, String) {
        let output = self.run(args);
        let code = output.status.code().expect("it ended by itself");
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_ne!(code, 0, "it succeeded: {stderr}");
        (code, stderr)
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).expect("the file can be written");
        path
    }

    /// A daemon on the default data directory and a free port.
    pub(crate) fn daemon(&self) -> Daemon {
        Daemon::start(self.granary(["daemon", "--listen", "127.0.0.1:0"]))
    }
}

/// The binary with no environment but a home.
pub(crate) fn bare(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_granary"));
    command.env_clear().env("HOME", home).current_dir(home).stdin(Stdio::null());
    command
}

/// The standard output of what must have succeeded.
pub(crate) fn succeeded(output: Output) -> Vec<u8> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "it ended with {}: {stderr}", output.status);
    output.stdout
}

/// The most memory that a running process ever had; `None` if it has ended.
pub(crate) fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// A running daemon; it is killed when this is dropped.
pub(crate) struct Daemon {
    child: Child,
    /// Kept open: a daemon whose output nobody takes would be another test.
    _stdout: BufReader<ChildStdout>,
    /// What it said when it was ready.
    pub(crate) announced: Vec<String>,
}

impl Daemon {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be run");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let mut announced = Vec::new();
        let mut line = String::new();
        while stdout.read_line(&mut line).expect("it can be read") > 0 {
            announced.push(line.trim_end().to_owned());
            if line.starts_with("extra-trusted-public-keys") || line.starts_with('{') {
                return Self { child, _stdout: stdout, announced };
            }
            line.clear();
        }
        let status = child.wait().expect("it has ended");
        let mut stderr = String::new();
        child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut stderr));
        panic!("the daemon did not start, it ended with {status}:\n{stderr}");
    }

    /// Everywhere it says it listens.
    pub(crate) fn urls(&self) -> Vec<String> {
        let url = |line: &String| line.strip_prefix("listening on ").map(str::to_owned);
        self.announced.iter().filter_map(url).collect()
    }

    /// The URL it can be reached at.
    pub(crate) fn url(&self) -> String {
        self.urls().first().expect("it listens somewhere").clone()
    }

    /// Host and port of the URL.
    pub(crate) fn address(&self) -> String {
        self.url().strip_prefix("http://").expect("it listens on TCP").to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it ever had.
    pub(crate) fn peak_kib(&self) -> u64 {
        peak_kib(self.pid()).expect("it runs")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is still there");
    }

    /// Waits for its end and says how long that took.
    pub(crate) fn wait(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return (status, began.elapsed());
            }
            assert!(began.elapsed() < PATIENCE, "the daemon does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it, which must go well.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let (status, elapsed) = self.wait();
        assert!(status.success(), "it ended with {status}");
        assert!(elapsed < STOP_TIME, "it took {elapsed:?}");
    }

    /// Stops it, which must go well, and returns what it logged.
    pub(crate) fn stop_for_log(mut self) -> String {
        let mut stderr = self.child.stderr.take().expect("it is a pipe");
        self.stop();
        let mut log = String::new();
        stderr.read_to_string(&mut log).expect("it is text");
        log
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Flips a bit where `contents`, which do not compress, lie in a pack.
pub(crate) fn damage(data_dir: &Path, contents: &[u8]) {
    let needle = &contents[contents.len() / 2..][..40];
    for entry in fs::read_dir(data_dir.join("packs")).expect("a store has packs") {
        let pack = entry.expect("an entry").path();
        let mut bytes = fs::read(&pack).expect("it can be read");
        let found = bytes.windows(needle.len()).position(|window| window == needle);
        if let Some(at) = found {
            bytes[at] ^= 1;
            // In its place: a daemon may have it open.
            let file = fs::OpenOptions::new().write(true).open(&pack);
            let file = file.expect("it can be written");
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..=at], at as u64)
                .expect("the disk takes it");
            return;
        }
    }
    panic!("it lies in no pack");
}

/// A whole blob of a daemon; `None` if it is not there.
pub(crate) fn read_blob(client: &Client, digest: &BlobDigest) -> Option<Vec<u8>> {
    let mut blob = client.open(digest).expect("it answers")?;
    let mut contents = Vec::new();
    loop {
        let data = blob.read_at(contents.len() as u64, 1 << 20).expect("it can be read");
        if data.is_empty() {
            return Some(contents);
        }
        contents.extend_from_slice(&data);
    }
}
