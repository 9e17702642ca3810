//! What was answered survives a kill: a process serves a data directory, is killed, and another one looks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;
use testkit::aws::{EmbeddedAws, Options, sdk_config};
use testkit::template::Template;

const DIRECTORY: &str = "TESTKIT_SERVE_DIRECTORY";

fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: Some(data_dir.to_owned()),
        ..Options::default()
    }
}

/// The process that is killed.
#[tokio::test]
#[ignore = "it ends when it is killed"]
async fn serve_until_killed() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let aws = EmbeddedAws::start(options(&directory)).await.unwrap();
    aws.create_tables(&Template::of_the_repository().unwrap())
        .await
        .unwrap();
    std::fs::write(directory.join("address.new"), aws.address().to_string()).unwrap();
    std::fs::rename(directory.join("address.new"), directory.join("address")).unwrap();
    std::future::pending::<()>().await;
}

async fn address(directory: &Path) -> Option<SocketAddr> {
    for _ in 0..300 {
        if let Ok(address) = std::fs::read_to_string(directory.join("address")) {
            return address.parse().ok();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serve_until_killed", "--ignored"])
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let config = sdk_config(&format!(
        "http://{}",
        address(directory.path())
            .await
            .expect("the process did not start")
    ));
    let dynamodb = aws_sdk_dynamodb::Client::new(&config);
    for index in 0..20 {
        let id = AttributeValue::S(format!("contact {index}"));
        dynamodb
            .put_item()
            .table_name("local-ContactsTable")
            .item("contact_key", id)
            .send()
            .await
            .unwrap();
    }
    let secrets = aws_sdk_secretsmanager::Client::new(&config);
    secrets
        .create_secret()
        .name("local/fbe/b")
        .secret_string("one")
        .send()
        .await
        .unwrap();
    secrets
        .put_secret_value()
        .secret_id("local/fbe/b")
        .secret_string("two")
        .send()
        .await
        .unwrap();
    // On Unix this is SIGKILL.
    process.kill().unwrap();
    process.wait().unwrap();

    let aws = EmbeddedAws::start(options(directory.path())).await.unwrap();
    let contacts = aws
        .dynamodb()
        .scan()
        .table_name("local-ContactsTable")
        .send()
        .await
        .unwrap();
    assert_eq!(contacts.count(), 20);
    let secret = aws
        .secrets_manager()
        .get_secret_value()
        .secret_id("local/fbe/b")
        .send()
        .await
        .unwrap();
    assert_eq!(secret.secret_string(), Some("two"));
    aws.put_secret("local/fbe/b", &json!("three")).await.unwrap();
}
