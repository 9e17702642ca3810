//! Results, messages, exit codes.

use assert_cmd::Command;
use assert_cmd::cargo::cargo_bin_cmd;

/// A port where nobody listens, so that no stack of the developer's answers a test.
const NOWHERE: &str = "127.0.0.1:1";

fn bridge(arguments: &[&str]) -> Command {
    let mut command = cargo_bin_cmd!("bridge");
    command.args(arguments);
    command
}

#[test]
fn sign_prints_the_headers_value_for_the_exact_bytes() {
    // Computed with openssl dgst -sha256 -hmac development-app-secret.
    let expected = "sha256=0e7d3facbf975bcb4abf4118be523577f96e765b60a3efeffc2da92ecb99f82e\n";
    bridge(&["sign", "-", "--aws-addr", NOWHERE])
        .write_stdin("{}")
        .assert()
        .success()
        .stdout(expected);
}

#[test]
fn link_prints_a_token_and_a_link_that_carries_it() {
    let output = bridge(&[
        "link",
        "--user-id",
        "42",
        "--page",
        "my.page",
        "--aws-addr",
        NOWHERE,
    ])
    .output()
    .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0].split('.').count(), 3, "{text}");
    assert_eq!(lines[1], format!("https://m.me/my.page?ref={}", lines[0]));
}

#[test]
fn wrong_use_is_2_and_says_what_is_expected() {
    let local = ["local", "--port", "0", "--aws-addr", "127.0.0.1:0"];
    for (arguments, told) in [
        (vec!["no-such-command"], "unrecognized subcommand"),
        (vec!["local", "--port", "x"], "invalid digit"),
        (vec!["local", "--tick", "0"], "1.."),
        (vec!["local", "--set", "NOPE"], "expects NAME=VALUE"),
        (
            [&local[..], &["--set", "NOPE=1"]].concat(),
            "no function has a setting NOPE",
        ),
        (
            [&local[..], &["--set", "UNLINKED_CONTACTS=drop"]].concat(),
            "`alias` or `hold`",
        ),
        (
            [&local[..], &["--braze-endpoint", "rest.iad-01.braze.com"]].concat(),
            "relative URL",
        ),
        (vec!["send", "messenger/text"], "did you mean"),
        (vec!["demo", "no-such-case"], "cases are"),
        (vec!["events"], "--check"),
        (
            vec!["events", "--check", "--dir", "/no/such/dir"],
            "there is no directory",
        ),
        (vec!["dead", "redrive"], "IDS"),
        (
            vec!["link", "--user-id", "1", "--ttl", "soon"],
            "expects a duration",
        ),
        (
            vec!["sign", "x", "--stack", "a", "--secrets", "b"],
            "cannot be used with",
        ),
    ] {
        let failed = bridge(&arguments).assert().code(2).get_output().clone();
        let text = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(text.contains(told), "{arguments:?}: {text}");
    }
}

#[test]
fn every_command_helps_with_examples() {
    for command in [
        "demo", "local", "send", "sign", "link", "dead", "events", "setup", "doctor",
    ] {
        let shown = bridge(&[command, "--help"])
            .assert()
            .success()
            .get_output()
            .clone();
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(text.contains("Examples:"), "{command}: {text}");
    }
}

#[test]
fn failure_is_1() {
    let nothing = bridge(&["dead", "list", "--aws-addr", NOWHERE])
        .assert()
        .code(1)
        .get_output()
        .clone();
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("is `bridge local` running?"));
    bridge(&["sign", "/no/such/file"]).assert().code(1);
    let url = format!("http://{NOWHERE}");
    let payload = tempfile::NamedTempFile::new().unwrap();
    let path = payload.path().to_str().unwrap();
    let send = [
        "send",
        path,
        "--to",
        "messenger",
        "--url",
        &url,
        "--aws-addr",
        NOWHERE,
    ];
    let failed = bridge(&send).assert().code(1).get_output().clone();
    assert!(String::from_utf8_lossy(&failed.stderr).contains("is `bridge local` running?"));
}
