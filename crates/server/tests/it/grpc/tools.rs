//! The gRPC clients of others, which `make test-tools` installs.

use std::{process::Stdio, time::Duration};

use granary_testkit::tools;
use tokio::{io::AsyncWriteExt, process::Command};

/// Longest that a tool may run: far more than it does.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a tool with `input`, checks that it succeeds, and returns what it prints.
pub(super) async fn run(name: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(tools::find(name))
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
