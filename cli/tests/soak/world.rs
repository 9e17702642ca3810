//! The fakes, and `bridge local` between them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use bridge::secrets::development;
use bridge::stack::{LocalStack, StackOptions};
use serde_json::{Value, json};
use shared::clock::Clock;
use testkit::braze::{self, FakeBraze};
use testkit::external_system::{self, ExternalSystem};
use testkit::graph::{self, FakeGraph, TokenKind};
use testkit::partner::FakePartner;

pub(crate) const PAGE: &str = "101332922643063";
const PAGE_TOKEN: &str = "EAAB-soak-page-token";
const REPLY_CAMPAIGN: &str = "soak-reply-campaign";
/// All that is asked for and sent is remembered.
const EVERYTHING: usize = 1_000_000;

pub(crate) struct World {
    pub(crate) braze: FakeBraze,
    pub(crate) graph: FakeGraph,
    pub(crate) system: ExternalSystem,
    pub(crate) secrets: Value,
    pub(crate) clock: Clock,
    pub(crate) partner: FakePartner,
    directory: tempfile::TempDir,
    process: Mutex<Option<Child>>,
    url: RwLock<String>,
}

impl World {
    pub(crate) async fn start() -> Self {
        let mut secrets = development();
        secrets["meta"]["page_access_tokens"] = json!({ PAGE: PAGE_TOKEN });
        let text = |pointer: &str| secrets.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        // That of the machine, as the process's, until it is moved.
        let clock = Clock::starting_at(Clock::system().now());
        let braze = braze::Options::new(&text("/braze/api_key"))
            .history(EVERYTHING)
            .drained(false);
        let graph = graph::Options::new(&text("/meta/app_id"), &text("/meta/app_secret"))
            .any_token(true)
            .history(EVERYTHING)
            .drained(false);
        let system = external_system::Options::new(&text("/relay/signing_secret"))
            .bearer_token(&text("/relay/external_system_token"))
            .history(EVERYTHING)
            .drained(false);
        let world = Self {
            braze: FakeBraze::start(braze.clock(&clock)).await.unwrap(),
            graph: FakeGraph::start(graph.clock(&clock)).await.unwrap(),
            system: ExternalSystem::start(system.clock(&clock)).await.unwrap(),
            partner: FakePartner::start(&text("/partner/signing_secret"), false)
                .await
                .unwrap(),
            directory: tempfile::Builder::new().disable_cleanup(true).tempdir().unwrap(),
            process: Mutex::new(None),
            url: RwLock::default(),
            secrets,
            clock,
        };
        world.graph.add_token(PAGE_TOKEN, TokenKind::Page, Some(PAGE));
        std::fs::write(
            world.directory.path().join("secrets.json"),
            world.secrets.to_string(),
        )
        .unwrap();
        world.begin();
        world
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let settings = [
            ("BRAZE_REST_ENDPOINT", self.braze.url()),
            ("GRAPH_API_URL", self.graph.url()),
            ("EXTERNAL_SYSTEM_URL", self.system.url()),
            ("PARTNER_WEBHOOK_URL", self.partner.url()),
            ("REPLY_CAMPAIGN_ID", REPLY_CAMPAIGN.to_owned()),
            ("EXTERNAL_SYSTEM_TIMEOUT_SECONDS", "5".to_owned()),
            ("RETRY_BASE_SECONDS", "1".to_owned()),
            ("MESSENGER_EVENTS", "message".to_owned()),
        ];
        let named = settings.into_iter().map(|(name, value)| (name.to_owned(), value));
        named.collect()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// All that the process has written. It stays where something is wrong.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts the process, and waits until it answers.
    pub(crate) fn begin(&self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut command = Command::new(cargo_bin!("bridge"));
        command.args([
            "-v",
            "local",
            "--port",
            "0",
            "--aws-addr",
            "127.0.0.1:0",
            // All that is due is read with each tick; on AWS there is one a minute.
            "--tick",
            "5",
            "--data-dir",
        ]);
        command
            .arg(self.data())
            .arg("--secrets")
            .arg(self.directory.path().join("secrets.json"));
        for (name, value) in self.settings() {
            command.args(["--set", &format!("{name}={value}")]);
        }
        let mut process = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = lines.next().unwrap().unwrap();
        ready
            .strip_prefix("ready ")
            .unwrap()
            .clone_into(&mut self.url.write().unwrap());
        // It must never wait for somebody to read what it says.
        std::thread::spawn(move || lines.count());
        *self.process.lock().unwrap() = Some(process);
    }

    /// What was asked for that the real ones would not take either.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let mut refusals = self.braze.take_refusals();
        // A business whose app is away at Meta before we hear of it has no tokens to exchange.
        let is_away =
            |refusal: &String| refusal.contains("/access_token") && refusal.contains("does not exist");
        let graph = self.graph.take_refusals().into_iter();
        refusals.extend(graph.filter(|refusal| !is_away(refusal)));
        refusals.extend(self.system.take_refusals());
        refusals.extend(self.partner.take_refusals());
        refusals
    }

    /// Ends the process as nothing else does: on Unix this is SIGKILL.
    pub(crate) fn kill(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Where the process answers, if it does.
    pub(crate) fn url(&self) -> String {
        self.url.read().unwrap().clone()
    }

    /// The same stack in this process, over what the other one has left.
    pub(crate) async fn look_inside(&self) -> LocalStack {
        self.kill();
        let options = StackOptions {
            data_dir: Some(self.data()),
            secrets: Some(self.secrets.clone()),
            settings: self.settings(),
            poll: Duration::from_millis(100),
            ..StackOptions::with_clock(&self.clock)
        };
        LocalStack::start(options).await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}
