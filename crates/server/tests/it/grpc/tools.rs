//! The gRPC clients of others, which `make test-tools` installs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{io::AsyncWriteExt, process::Command};

/// Longest that a tool may run: far more than it does.
const LIMIT: Duration = Duration::from_secs(60);

/// Where the tool of that name is: in the directory of the test tools, else on `PATH`.
fn find(name: &str) -> PathBuf {
    let tools = env::var_os("GRANARY_TEST_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-tools"),
        PathBuf::from,
    );
    let mut places = vec![tools.join("venv/bin")];
    places.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let found = places
        .iter()
        .map(|place| place.join(name))
        .find(|path| fs::metadata(path).is_ok_and(|found| found.is_file()));
    found.unwrap_or_else(|| panic!("{name} is missing: `make test-tools` installs it"))
}

/// Runs a tool with `input`, checks that it succeeds, and returns what it prints.
pub(super) async fn run(name: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(find(name))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).await.expect("the tool reads");
    drop(stdin);
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    let ended = ended.expect("the tool should have ended").expect("the tool ends");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{name} {arguments:?} failed: {errors}");
    String::from_utf8(ended.stdout).expect("the tool prints text")
}
