//! `bridge setup` and `bridge doctor` as commands: what they change, what they print, how they end.

use assert_cmd::cargo::cargo_bin_cmd;
use jiff::SignedDuration;
use serde_json::{Value, json};
use testkit::graph::{Edge, FakeGraph, Page, Person, faults};
use testkit::time::eventually;

use crate::house::{House, payload};

/// The page of the local stack's Graph.
const PAGE: &str = "1134597043258171";
const INSTAGRAM: &str = "17841452691600098";
const TOKEN: &str = "EAAB-page-1134597043258171";
const USER: &str = "EAAB-user";

/// What a command printed, and how it ended.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Whether it ended in this way and said this on standard error, and no token anywhere.
    fn said(&self, code: i32, words: &[&str]) {
        let all = format!("{}\n{}", self.stdout, self.stderr);
        assert_eq!(self.code, code, "{all}");
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in {all}");
        }
        assert!(!all.contains("EAAB"), "{all}");
        for secret in [
            "development-app-secret",
            "development-verify-token",
            "development-inbound-token",
        ] {
            assert!(!all.contains(secret), "{all}");
        }
    }
}

impl House {
    fn graph(&self) -> &FakeGraph {
        self.stack.fakes().graph.as_ref().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Ended {
        let address = self.stack.aws().address().to_string();
        let output = cargo_bin_cmd!("bridge")
            .args(["--now", &self.clock.now().to_string()])
            .args(arguments)
            .args(["--aws-addr", &address])
            .env_remove("GRAPH_API_URL")
            .write_stdin(input.to_owned())
            .output()
            .unwrap();
        Ended {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    async fn meta(&self) -> Value {
        let client = self.stack.aws().secrets_manager();
        let secret = client
            .get_secret_value()
            .secret_id("local/meta")
            .send()
            .await
            .unwrap();
        serde_json::from_str(secret.secret_string().unwrap()).unwrap()
    }

    /// That nothing was written here or at Meta.
    async fn is_untouched(&self) {
        assert_eq!(
            self.meta().await,
            *bridge::secrets::development().get("meta").unwrap()
        );
        assert!(self.graph().application().subscriptions.is_empty());
        assert!(self.graph().page(PAGE).unwrap().subscribed.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_commands_make_a_fresh_stack_green_and_the_second_setup_changes_nothing() {
    let house = House::live(&[]).await;
    let before = house.run(&["doctor", "--json"]);
    before.said(1, &[]);
    assert_eq!(before.json()["ok"], false);

    let first = house.run(&["setup", "--user-token", USER]);
    first.said(0, &[]);
    assert!(
        first.stdout.contains("Left to do in Braze")
            && first.stdout.contains("<inbound_token of local/relay>")
    );
    let meta = house.meta().await;
    assert_eq!(meta["page_access_tokens"], json!({PAGE: TOKEN, INSTAGRAM: TOKEN}));
    assert_eq!(meta["app_secret"], "development-app-secret");
    let app = house.graph().application();
    let callback = format!("{}/messenger/webhook", house.stack.url());
    assert_eq!(app.subscriptions["page"].callback_url, callback);
    assert_eq!(app.subscriptions["page"].fields.len(), 8);
    assert!(
        app.subscriptions["instagram"]
            .fields
            .contains("messaging_referral")
    );
    assert_eq!(
        house.graph().page(PAGE).unwrap().subscribed["development-app-id"].len(),
        8
    );

    let second = house.run(&["setup", "--user-token", USER, "--json"]);
    second.said(0, &[]);
    let report = second.json();
    assert_eq!((&report["ok"], &report["changed"]), (&json!(true), &json!(false)));
    assert_eq!(house.meta().await, meta);
    assert_eq!(house.graph().calls_of(Edge::SubscribeApp).len(), 2);
    assert_eq!(house.graph().calls_of(Edge::SubscribePage).len(), 1);

    // Without a token it works with what is kept.
    let third = house.run(&["setup"]);
    third.said(0, &[]);
    assert!(
        third.stdout.contains("nothing had to be changed"),
        "{}",
        third.stdout
    );

    let doctor = house.run(&["doctor", "--json"]);
    doctor.said(0, &[]);
    let report = doctor.json();
    assert_eq!(report["ok"], true);
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check.as_object().unwrap().len(), 4, "{check}");
    }
    assert_eq!(house.stack.fakes().take_refusals(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let house = House::live(&[]).await;
    let dry = house.run(&["setup", "--user-token", USER, "--dry-run"]);
    dry.said(0, &[]);
    assert!(
        dry.stdout.contains("planned") && dry.stdout.contains("dry run"),
        "{}",
        dry.stdout
    );
    house.is_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_field_of_the_secret_stays() {
    let house = House::live(&[]).await;
    let mut meta = bridge::secrets::development().get("meta").unwrap().clone();
    meta["previous_app_secret"] = json!("an-older-secret");
    meta["something_new"] = json!({"kept": [1, 2, 3]});
    meta["page_access_tokens"] = json!({"7": "a-token-of-another-page"});
    house.stack.aws().put_secret("local/meta", &meta).await.unwrap();
    house
        .run(&["setup", "--user-token", USER])
        .said(1, &["checks fail"]);
    meta["page_access_tokens"] = json!({"7": "a-token-of-another-page", PAGE: TOKEN, INSTAGRAM: TOKEN});
    assert_eq!(house.meta().await, meta);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_said_and_nothing_is_half_written() {
    let house = House::live(&[]).await;
    let graph = house.graph();
    let setup = ["setup", "--user-token", USER];

    graph.add_person(USER, Person::of_pages(&[]));
    house.run(&setup).said(1, &["no page", "business_management"]);

    graph.add_person(
        USER,
        Person {
            dead: Some(460),
            ..Person::new()
        },
    );
    house.run(&setup).said(1, &["dead", "password"]);

    graph.add_person(
        USER,
        Person {
            foreign_app: Some("77".to_owned()),
            ..Person::new()
        },
    );
    house.run(&setup).said(1, &["belongs to app 77"]);

    graph.add_person(USER, Person::of_pages(&[PAGE]));
    house
        .run(&["setup", "--user-token", USER, "--page", "42"])
        .said(1, &["no role on page 42", PAGE]);

    house
        .run(&["setup", "--user-token", TOKEN])
        .said(1, &["--page-token", PAGE]);
    house
        .run(&["setup", "--page-token", TOKEN])
        .said(2, &["PAGE=TOKEN"]);
    house
        .run(&["setup", "--page-token", &format!("42={TOKEN}")])
        .said(1, &["that of page"]);
    house.run(&["setup"]).said(2, &["--user-token"]);

    graph.begin_outage(faults::unavailable(503));
    house.run(&setup).said(1, &["try again"]);
    graph.end_outage();

    graph.change_page(PAGE, |page| page.tasks = vec!["ANALYZE".to_owned()]);
    house.run(&setup).said(1, &["MODERATE"]);
    graph.change_page(PAGE, |page| page.tasks.clear());
    house.run(&setup).said(1, &["no token"]);
    graph.change_page(PAGE, |page| *page = Page::new(PAGE, "Recorded Page"));

    graph.change_page(PAGE, |page| page.dead = Some(463));
    house.run(&setup).said(1, &["does not work", "ended"]);
    house.is_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_meta_refuses_later_is_named_and_made_up_for_by_the_next_run() {
    let house = House::live(&[]).await;
    let graph = house.graph();
    // The callback leads elsewhere: Meta does not get its challenge back.
    let elsewhere = graph.url();
    let setup = ["setup", "--user-token", USER, "--url", &elsewhere];
    house.run(&setup).said(1, &["2200"]);

    // One field lacks a permission.
    graph.change_page(PAGE, |page| {
        page.scopes.retain(|scope| scope != "pages_messaging");
    });
    let ended = house.run(&["setup", "--user-token", USER, "--fields", "feed,messages"]);
    ended.said(0, &["pages_messaging"]);
    assert!(ended.stdout.contains("without messages"), "{}", ended.stdout);
    let fields = &graph.page(PAGE).unwrap().subscribed["development-app-id"];
    assert_eq!(fields.iter().collect::<Vec<_>>(), ["feed"]);

    graph.change_page(PAGE, |page| {
        *page = Page::new(PAGE, "Recorded Page").instagram(INSTAGRAM, "shop");
    });
    graph.change_app(|app| {
        app.subscriptions.clear();
        app.refuses_instagram = true;
    });
    let ended = house.run(&["setup", "--user-token", USER]);
    ended.said(0, &[]);
    assert!(ended.stdout.contains("Instagram > Webhooks"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_many_pages_are_found() {
    let house = House::live(&[]).await;
    for number in 0..300 {
        house
            .graph()
            .add_page(Page::new(&format!("{}", 9000 + number), "One of many"));
    }
    let ended = house.run(&["setup", "--user-token", USER]);
    ended.said(2, &["301 pages", "--page", PAGE]);
    house.is_untouched().await;
    house
        .run(&["setup", "--user-token", USER, "--page", "9299"])
        .said(0, &[]);
    assert_eq!(
        house.meta().await["page_access_tokens"],
        json!({"9299": "EAAB-page-9299"})
    );
    // Not listed without a permission, but there.
    house.graph().change_page(PAGE, |page| page.is_listed = false);
    house
        .run(&["setup", "--user-token", USER, "--page", PAGE])
        .said(0, &[]);
    assert_eq!(house.meta().await["page_access_tokens"][PAGE], TOKEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_secret_comes_from_standard_input_and_a_verify_token_is_made() {
    let house = House::live(&[]).await;
    let empty = json!({"app_id": "", "app_secret": "", "verify_token": ""});
    house.stack.aws().put_secret("local/meta", &empty).await.unwrap();
    house
        .run(&["setup", "--user-token", USER])
        .said(1, &["--app-secret-stdin"]);
    let setup = [
        "setup",
        "--app-id",
        "development-app-id",
        "--app-secret-stdin",
        "--user-token",
        USER,
    ];
    house.run_with(&setup, "development-app-secret\n").said(0, &[]);
    let meta = house.meta().await;
    assert_eq!(meta["app_secret"], "development-app-secret");
    assert_eq!(meta["verify_token"].as_str().unwrap().len(), 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relays_tokens_are_printed_only_if_asked_for() {
    let house = House::live(&[]).await;
    let revealed = house.run(&["setup", "--user-token", USER, "--reveal"]);
    assert_eq!(revealed.code, 0, "{}", revealed.stderr);
    assert!(
        revealed.stdout.contains("Bearer development-inbound-token"),
        "{}",
        revealed.stdout
    );
    assert!(!revealed.stdout.contains("EAAB"), "{}", revealed.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_of_the_first_message_is_shown() {
    let house = House::live(&[]).await;
    house.run(&["setup", "--user-token", USER]).said(0, &[]);
    let waiting = async {
        let (address, now) = (
            house.stack.aws().address().to_string(),
            house.clock.now().to_string(),
        );
        let command = ["--now", &now, "doctor", "--wait", "60", "--aws-addr", &address];
        let mut command = tokio::process::Command::from({
            let mut process = std::process::Command::new(assert_cmd::cargo::cargo_bin!("bridge"));
            process.args(command);
            process
        });
        command.output().await.unwrap()
    };
    let sending = async {
        // It looks at the outbox last; then it reads the contacts and waits.
        let scans = async || house.stack.aws().dynamodb_calls().of("Scan") > 1;
        assert!(eventually(scans).await);
        house.deliver(&payload("messenger/message_text")).await;
    };
    let (output, ()) = tokio::join!(waiting, sending);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    for word in [
        "received  Messenger 1134597043258171",
        "stored    after ",
        "braze     told after ",
    ] {
        assert!(text.contains(word), "{text}");
    }
    assert!(!text.contains("5275811702764837"), "{text}");
    house.later(SignedDuration::from_secs(1));
}

#[test]
fn without_a_stack_both_say_so() {
    for command in ["setup", "doctor"] {
        let output = cargo_bin_cmd!("bridge")
            .args([command, "--aws-addr", "127.0.0.1:1"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("is `bridge local` running?"), "{text}");
    }
}
