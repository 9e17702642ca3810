//! `bridge local` and `bridge demo` as processes.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use testkit::braze::{FakeBraze, Options, faults};
use testkit::time::{PATIENCE, eventually, start};

/// `bridge local` with what it said about itself.
struct Local {
    process: Child,
    url: String,
    aws: String,
    greeting: Vec<String>,
}

impl Local {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(cargo_bin!("bridge"))
            .args(["--now", &start().to_string()])
            .args(["local", "--port", "0", "--aws-addr", "127.0.0.1:0", "--tick", "1"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = lines.next().unwrap().unwrap();
        let url = ready.strip_prefix("ready ").unwrap().to_owned();
        // It ends with the command that looks into a table.
        let mut greeting = Vec::new();
        for line in lines {
            greeting.push(line.unwrap());
            if greeting.last().unwrap().contains("dynamodb scan") {
                break;
            }
        }
        let aws = greeting
            .iter()
            .find_map(|line| line.split("--endpoint-url ").nth(1)?.split(' ').next());
        Self {
            aws: aws.unwrap().to_owned(),
            process,
            url,
            greeting,
        }
    }

    fn send(&self, case: &str) {
        let status = Command::new(cargo_bin!("bridge"))
            .args(["send", case, "--url", &self.url, "--aws-addr"])
            .arg(self.aws.trim_start_matches("http://"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{case}");
    }

    async fn contacts(&self) -> usize {
        let config = testkit::aws::sdk_config(&self.aws);
        let client = aws_sdk_dynamodb::Client::new(&config);
        let scan = client.scan().table_name("local-ContactsTable");
        // The same table holds users' records.
        let scan = scan.filter_expression("attribute_exists(facts)").send().await;
        usize::try_from(scan.unwrap().count()).unwrap()
    }

    /// Waits until it is so with every item of the outbox.
    async fn until_every_item(&self, is_so: impl Fn(&HashMap<String, AttributeValue>) -> bool) {
        let config = testkit::aws::sdk_config(&self.aws);
        let client = aws_sdk_dynamodb::Client::new(&config);
        let scan = client.scan().table_name("local-OutboxTable");
        let all = async || {
            let found = scan.clone().consistent_read(true).send().await.unwrap();
            found.items().iter().all(&is_so)
        };
        assert!(eventually(all).await, "the outbox does not come to that");
    }

    /// Ends it as an operator does, and gives its exit code.
    async fn terminate(mut self) -> Option<i32> {
        let id = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        let mut status = None;
        let ended = eventually(async || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        assert!(ended.await, "it does not stop");
        status.unwrap().code()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // A process of a failed test must not outlive it; one that has ended cannot be killed.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_answers_once_it_is_ready_and_stops_cleanly() {
    let local = Local::start(&[]);
    // The first printed line to paste is the handshake.
    let curl = local
        .greeting
        .iter()
        .find(|line| line.starts_with("curl '"))
        .unwrap();
    let handshake = curl.split('\'').nth(1).unwrap();
    let answer = shared::clients::http::client(PATIENCE)
        .get(handshake)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.text().await.unwrap().as_str()),
        (200, "42")
    );

    for command in ["bridge setup --user-token", "bridge doctor --aws-addr"] {
        assert!(
            local.greeting.iter().any(|line| line.starts_with(command)),
            "{command}"
        );
    }

    // The second is a signed message: address, headers and body in quotes.
    let curl = local
        .greeting
        .iter()
        .find(|line| line.starts_with("curl -X POST"))
        .unwrap();
    let address = curl.split(' ').nth(3).unwrap();
    let mut request = shared::clients::http::client(PATIENCE).post(address);
    let quoted: Vec<&str> = curl.split('\'').skip(1).step_by(2).collect();
    let (body, headers) = quoted.split_last().unwrap();
    for header in headers {
        let (name, value) = header.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let answer = request.body((*body).to_owned()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(local.contacts().await, 1);
    assert_eq!(local.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_survives_kill_9_and_reaches_braze_later() {
    let braze = FakeBraze::start(Options::new("development-braze-api-key"))
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let arguments = |directory: &Path| -> Vec<String> {
        [
            "--data-dir",
            directory.to_str().unwrap(),
            "--braze-endpoint",
            &braze.url(),
        ]
        .into_iter()
        .chain(["--set", "RETRY_BASE_SECONDS=4"])
        .map(str::to_owned)
        .collect()
    };
    let begin = || {
        let arguments = arguments(directory.path());
        Local::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };

    braze.begin_outage(faults::unavailable(503));
    let mut local = begin();
    local.send("messenger/referral_link_token");
    local.send("instagram/message_text");
    // That it was in vain is written down.
    local
        .until_every_item(|item| item["attempts"].as_n().unwrap() != "0")
        .await;
    // On Unix this is SIGKILL.
    local.process.kill().unwrap();
    local.process.wait().unwrap();
    assert_eq!(braze.data_points(), 0);
    braze.end_outage();

    let local = begin();
    assert_eq!(local.contacts().await, 2);
    let told = |braze: &FakeBraze| {
        let linked = braze.profile("user-43");
        let linked = linked.and_then(|profile| profile.attribute("messenger_id").cloned());
        linked == Some(Value::from("5275811715949972")) && braze.profiles().len() == 2
    };
    // If it was killed in the middle of another try, the contact's lease outlives it by 90 s.
    let patience = PATIENCE + Duration::from_secs(90);
    assert!(braze.until(patience, told).await, "{:#?}", braze.profiles());
    let points = braze.data_points();

    // A redelivery after all that changes nothing.
    local.send("messenger/referral_link_token");
    local.send("instagram/message_text");
    local
        .until_every_item(|item| item["status"].as_s().unwrap() == "done")
        .await;
    assert_eq!((local.contacts().await, braze.data_points()), (2, points));
    assert_eq!(local.terminate().await, Some(0));
}

#[tokio::test]
async fn two_stacks_do_not_share_a_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let local = Local::start(&["--data-dir", path]);
    let second = Command::new(cargo_bin!("bridge"))
        .args([
            "local",
            "--port",
            "0",
            "--aws-addr",
            "127.0.0.1:0",
            "--data-dir",
            path,
        ])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("used by another process"));
    assert_eq!(local.terminate().await, Some(0));
}

#[test]
fn the_demo_is_in_order() {
    let output = Command::new(cargo_bin!("bridge"))
        .args(["--now", &start().to_string(), "demo"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    // A newcomer sees what was answered, stored and sent.
    for line in [
        "done       page_subscription 1134597043258171: ",
        "ok         handshake: ",
        "messenger/referral_link_token",
        "is user user-43 (by ref)",
        "outbox  contact_sync done",
        "braze   /users/track → 201: user user-43: messenger_id = \"5275811715949972\"",
        "fbe_exchange_token done",
        "message user:42: \"where is my order?\"",
        "/campaigns/trigger/send → 201: to user 42 {\"external_system_msg_body\":\"You said: where is my order?\"}",
        "off     pixel (pixel_id is missing)",
        "off     ads (ad_account_id is missing), pixel (pixel_id is missing)",
        "token   gone, its secret is scheduled for deletion",
        "handed  to the external system: \"Two of the blue ones / none of the red ones / and to my office\"",
        "profile ana: whatsapp_human_agent = true",
        "through local-template-campaign",
        "; 0 off; ",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
}
