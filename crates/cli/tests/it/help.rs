//! What `--help` says.

use crate::support::Home;

const COMMANDS: [&str; 14] = [
    "daemon", "import", "ls", "cat", "nar", "info", "pin", "delete", "why", "gc", "recover",
    "stats", "verify", "repair",
];

#[test]
fn of_everything() {
    let home = Home::new();
    let help = |args: &[&str]| {
        let mut command = home.granary(args);
        command.env("COLUMNS", "100");
        let output = crate::support::succeeded(command.output().expect("it can be run"));
        String::from_utf8(output).expect("text")
    };
    insta::assert_snapshot!("help", help(&["--help"]));
    for command in COMMANDS {
        insta::assert_snapshot!(format!("help-{command}"), help(&[command, "--help"]));
    }
    for command in ["add", "rm", "list"] {
        insta::assert_snapshot!(format!("help-pin-{command}"), help(&["pin", command, "--help"]));
    }
}

#[test]
fn no_command_is_left_out() {
    let help = Home::new().text(["help"]);
    let listed = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.split_whitespace().next())
        .filter(|command| *command != "help");
    assert!(listed.eq(COMMANDS), "{help}");
}

#[test]
fn version() {
    let version = Home::new().text(["--version"]);
    assert_eq!(version, format!("granary {}", env!("CARGO_PKG_VERSION")));
}
