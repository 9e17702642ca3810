//! The meta secret: what is filled in, and the pages' tokens that are added to it.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::process::Command;

use anyhow::{Context as _, bail};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use shared::clients::graph::GraphApp;

use super::tokens::Page;
use super::{Args, Became, Steps};
use crate::hidden::Hidden;
use crate::output::{self, usage};
use crate::target::Target;

/// The field that the pages' tokens are in.
const TOKENS: &str = "page_access_tokens";

/// The meta secret, and what is to change in it.
pub(super) struct Meta {
    held: Map<String, Value>,
    /// Fields that were empty.
    filled: Vec<(&'static str, SecretString)>,
    /// Tokens by page or account.
    tokens: Vec<(String, SecretString)>,
    /// Of the braze secret.
    api_key: Option<SecretString>,
}

impl Meta {
    /// Reads the secret. What is empty comes from the arguments, or from the person at the terminal.
    pub(super) async fn read(target: &Target, args: &Args, hidden: &mut Hidden) -> anyhow::Result<Self> {
        let held = target.secrets.fields("meta").await?;
        hidden.add_fields(&held);
        let mut meta = Self {
            held,
            filled: Vec::new(),
            tokens: Vec::new(),
            api_key: None,
        };
        let ask = io::stdin().is_terminal() && io::stderr().is_terminal() && !args.dry_run && !args.json;
        if let Some(id) = &args.app_id {
            meta.fill("app_id", id.as_str().into());
        } else if ask && meta.text("app_id").is_empty() {
            meta.fill("app_id", question("App id (App settings > Basic): ", false)?);
        }
        if args.app_secret_stdin {
            let mut line = String::new();
            io::stdin()
                .lock()
                .read_line(&mut line)
                .context("standard input cannot be read")?;
            if line.trim().is_empty() {
                return Err(usage("--app-secret-stdin: standard input is empty"));
            }
            meta.fill("app_secret", line.trim().into());
        } else if ask && meta.text("app_secret").is_empty() {
            meta.fill("app_secret", question("App secret: ", true)?);
        }
        if meta.text("verify_token").is_empty() {
            // Letters and digits: others were mis-escaped on the way.
            meta.fill("verify_token", uuid::Uuid::new_v4().simple().to_string().into());
        }
        if ask {
            let braze = target.secrets.fields("braze").await?;
            hidden.add_fields(&braze);
            if braze
                .get("api_key")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .is_empty()
            {
                let key = question("Braze REST API key (empty = later): ", true)?;
                meta.api_key = Some(key).filter(|key| !key.expose_secret().is_empty());
            }
        }
        for (name, value) in &meta.filled {
            if *name != "app_id" {
                hidden.add(value);
            }
        }
        if let Some(key) = &meta.api_key {
            hidden.add(key);
        }
        for name in ["app_id", "app_secret"] {
            if meta.text(name).is_empty() {
                bail!(
                    "{name} of the meta secret is empty: say --app-id ID --app-secret-stdin; both are in Meta's dashboard \
                     under App settings > Basic"
                );
            }
        }
        Ok(meta)
    }

    fn fill(&mut self, name: &'static str, value: SecretString) {
        if self.text(name) != value.expose_secret() {
            self.filled.push((name, value));
        }
    }

    /// A field as it will be.
    fn text(&self, name: &str) -> String {
        let filled = self.filled.iter().find(|(field, _)| *field == name);
        let filled = filled.map(|(_, value)| value.expose_secret().trim().to_owned());
        filled.unwrap_or_else(|| {
            let held = self.held.get(name).and_then(Value::as_str);
            held.unwrap_or_default().trim().to_owned()
        })
    }

    pub(super) fn app(&self) -> anyhow::Result<GraphApp> {
        let id = self.text("app_id");
        if !id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        {
            bail!("app_id of the meta secret is no app's id");
        }
        Ok(GraphApp::new(&id, &self.text("app_secret").into()))
    }

    pub(super) fn verify_token(&self) -> SecretString {
        self.text("verify_token").into()
    }

    /// Whether functions may still hold an older one.
    pub(super) fn has_new_verify_token(&self) -> bool {
        self.filled.iter().any(|(name, _)| *name == "verify_token")
    }

    /// The tokens that are kept, by page or account.
    pub(super) fn tokens(&self) -> Vec<(String, SecretString)> {
        let held = self
            .held
            .get(TOKENS)
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        held.filter_map(|(id, token)| Some((id.clone(), SecretString::from(token.as_str()?))))
            .collect()
    }

    /// Keeps a page's token, for its Instagram account as well.
    pub(super) fn keep(&mut self, page: &Page) {
        for id in std::iter::once(&page.id).chain(&page.instagram) {
            self.tokens.push((id.clone(), page.token.clone()));
        }
    }

    /// Writes what is new, on top of what is there at that moment.
    pub(super) async fn write(
        &self,
        target: &Target,
        dry_run: bool,
        steps: &mut Steps,
    ) -> anyhow::Result<()> {
        let before = target.secrets.fields("meta").await?;
        let mut after = before.clone();
        for (name, value) in &self.filled {
            after.insert((*name).to_owned(), value.expose_secret().into());
        }
        let held = after.entry(TOKENS).or_insert_with(|| Value::Object(Map::new()));
        if !held.is_object() {
            *held = Value::Object(Map::new());
        }
        if let Some(held) = held.as_object_mut() {
            for (id, token) in &self.tokens {
                held.insert(id.clone(), token.expose_secret().into());
            }
        }
        let changed: Vec<&str> = after
            .iter()
            .filter(|(name, value)| before.get(*name) != Some(value))
            .map(|(name, _)| name.as_str())
            .collect();
        if changed.is_empty() {
            steps.add(
                "secret",
                Became::Unchanged,
                format!("tokens of {} are kept", ids(&self.tokens)),
            );
        } else {
            let what = format!("{} (tokens of {})", changed.join(", "), ids(&self.tokens));
            if dry_run {
                steps.add(
                    "secret",
                    Became::Planned,
                    format!("write {what}; every other field stays"),
                );
            } else {
                target.secrets.write("meta", &after).await?;
                steps.add(
                    "secret",
                    Became::Done,
                    format!("wrote {what}; every other field stayed"),
                );
            }
        }
        if let Some(key) = &self.api_key {
            let mut braze = target.secrets.fields("braze").await?;
            braze.insert("api_key".to_owned(), key.expose_secret().into());
            target.secrets.write("braze", &braze).await?;
            steps.add("secret", Became::Done, "wrote api_key of the braze secret");
        }
        Ok(())
    }
}

fn ids(tokens: &[(String, SecretString)]) -> String {
    let ids: Vec<&str> = tokens.iter().take(10).map(|(id, _)| id.as_str()).collect();
    match tokens.len().saturating_sub(ids.len()) {
        0 => ids.join(", "),
        more => format!("{} and {more} more", ids.join(", ")),
    }
}

/// Asks at the terminal; a secret is not shown while it is typed.
fn question(text: &str, is_secret: bool) -> anyhow::Result<SecretString> {
    let echo = |on: &str| drop(Command::new("stty").arg(on).status());
    output::ask(text);
    if is_secret {
        echo("-echo");
    }
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    if is_secret {
        echo("echo");
        output::note("");
    }
    read.context("standard input cannot be read")?;
    Ok(line.trim().into())
}
