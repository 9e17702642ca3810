//! Which pages, and tokens for them that were seen to work.

use std::io::{self, BufRead as _, IsTerminal as _};

use anyhow::{Context as _, bail};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use shared::clients::graph::app::{self, TokenFacts};
use shared::clients::graph::{Credentials, ErrorKind, GraphApp, GraphClient};
use shared::health::{Check, Status, refusal, token};

use super::refused;
use crate::hidden::Hidden;
use crate::output::{self, usage};

/// Tokens that are looked at at once.
const AT_ONCE: usize = 8;
/// More pages are not listed in an error.
const LISTED: usize = 20;
/// How ids of Instagram accounts begin.
const INSTAGRAM_ID: &str = "17841";

/// What was given on the command line.
pub(super) enum Given {
    Person(SecretString),
    Pages(Vec<(String, SecretString)>),
    /// The pages that are kept are set up anew.
    Nothing,
}

/// A page that will be set up.
pub(super) struct Page {
    pub(super) id: String,
    pub(super) token: SecretString,
    /// The account that is linked to it.
    pub(super) instagram: Option<String>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

/// Looks for pages.
pub(super) struct Search<'a> {
    pub(super) graph: &'a GraphClient,
    pub(super) app: &'a GraphApp,
    pub(super) given: Given,
    pub(super) only: &'a [String],
    /// Tokens that the secret holds, by page or account.
    pub(super) kept: Vec<(String, SecretString)>,
    pub(super) now: Timestamp,
}

impl Search<'_> {
    /// The pages, each with a token that works. Nothing is changed.
    pub(super) async fn pages(&self, hidden: &mut Hidden) -> anyhow::Result<Vec<Page>> {
        let found = match &self.given {
            Given::Person(token) => self.of_person(token, hidden).await?,
            Given::Pages(pages) => {
                let tokens = pages.iter().map(|(page, token)| (page.clone(), token.clone()));
                self.of_tokens(tokens.collect()).await?
            }
            Given::Nothing => {
                let kept = self.kept.iter().filter(|(id, _)| !id.starts_with(INSTAGRAM_ID));
                let kept: Vec<_> = kept.cloned().collect();
                if kept.is_empty() {
                    return Err(usage(
                        "say --user-token T (or --page-token PAGE=T): no page's token is kept yet",
                    ));
                }
                self.of_tokens(kept).await?
            }
        };
        for page in &found {
            if let Some(token) = &page.token {
                hidden.add(token);
            }
        }
        let looking = found.into_iter().map(|page| self.seen_to_work(page));
        stream::iter(looking).buffered(AT_ONCE).try_collect().await
    }

    async fn facts(&self, token: &SecretString, whose: &str) -> anyhow::Result<TokenFacts> {
        let facts = self.graph.debug_token(self.app, token).await;
        facts.map_err(|error| {
            refused(
                &format!("Graph says nothing about {whose}"),
                &error,
                &refusal::of_app(&error),
            )
        })
    }

    async fn of_person(&self, token: &SecretString, hidden: &mut Hidden) -> anyhow::Result<Vec<app::Page>> {
        let facts = self.facts(token, "the user token").await?;
        if let Some(other) = facts.app_id.as_deref().filter(|id| *id != self.app.id) {
            bail!(
                "the user token belongs to app {other}, not to {}: choose this app where you make the token",
                self.app.id
            );
        }
        if !facts.is_valid {
            let (subcode, message) = facts.error.clone().unwrap_or_default();
            bail!(
                "the user token is dead: {message} - {}",
                refusal::dead_token(subcode)
            );
        }
        if facts.kind.as_deref() == Some("PAGE") {
            let page = facts.profile_id.unwrap_or_else(|| "PAGE".to_owned());
            bail!("this is a page's token: give it as --page-token {page}=TOKEN");
        }
        let token = self.long_lived(token, &facts).await?;
        hidden.add(&token);
        let credentials = Credentials {
            app: self.app,
            token: &token,
        };
        let listed = self.graph.pages(credentials).await;
        let listed = listed
            .map_err(|error| refused("Graph does not list the pages", &error, &refusal::remedy(&error)))?;
        if self.only.is_empty() {
            return choose(listed);
        }
        let mut chosen = Vec::new();
        for wanted in self.only {
            if let Some(page) = listed.iter().find(|page| page.id == *wanted) {
                chosen.push(page.clone());
                continue;
            }
            // A page of a Business Portfolio is not listed without `business_management`.
            let page = self.graph.page(credentials, wanted).await;
            let page = page
                .ok()
                .filter(|page| page.id == *wanted && page.token.is_some());
            chosen.push(page.with_context(|| not_yours(wanted, &listed))?);
        }
        Ok(chosen)
    }

    /// A page's token lives as long as the person's that it was got with.
    async fn long_lived(&self, token: &SecretString, facts: &TokenFacts) -> anyhow::Result<SecretString> {
        if facts.kind.as_deref() == Some("SYSTEM_USER") {
            return Ok(token.clone());
        }
        match self.graph.long_lived_token(self.app, token).await {
            Ok(long) => Ok(long),
            Err(error) => {
                let lasts = facts
                    .expires_at
                    .is_some_and(|end| end.duration_since(self.now).as_hours() > 7 * 24);
                if lasts && !error.is_retryable() && !matches!(error.kind, ErrorKind::App) {
                    return Ok(token.clone());
                }
                let remedy = refusal::of_app(&error);
                Err(refused(
                    "the user token cannot be made long-lived",
                    &error,
                    &remedy,
                ))
            }
        }
    }

    /// Pages of which the tokens are known.
    async fn of_tokens(&self, tokens: Vec<(String, SecretString)>) -> anyhow::Result<Vec<app::Page>> {
        if let Some(unknown) = self
            .only
            .iter()
            .find(|id| !tokens.iter().any(|(page, _)| page == *id))
        {
            return Err(usage(format!("there is no token for --page {unknown}")));
        }
        let mut pages = Vec::new();
        for (id, token) in tokens {
            if !self.only.is_empty() && !self.only.contains(&id) {
                continue;
            }
            let credentials = Credentials {
                app: self.app,
                token: &token,
            };
            // Only for the linked account: whether the token works is looked at for all alike.
            let seen = self.graph.page(credentials, &id).await.ok();
            pages.push(app::Page {
                id,
                name: seen.as_ref().map(|page| page.name.clone()).unwrap_or_default(),
                token: Some(token),
                tasks: Vec::new(),
                instagram: seen.and_then(|page| page.instagram),
            });
        }
        Ok(pages)
    }

    /// The page with a token that Graph calls good; the kept one if that is.
    async fn seen_to_work(&self, found: app::Page) -> anyhow::Result<Page> {
        let (id, instagram) = (
            found.id.clone(),
            found.instagram.as_ref().map(|account| account.id.clone()),
        );
        let Some(token) = found.token.clone() else {
            bail!("page {id} gives no token: the person needs a task there (Page settings > Page access)");
        };
        if !found.has_task(&["CREATE_CONTENT", "MANAGE", "MODERATE"]) {
            bail!(
                "the person may not subscribe page {id}: one of the tasks CREATE_CONTENT, MANAGE and MODERATE is missing \
                 (Page settings > Page access)"
            );
        }
        let mut notes = Vec::new();
        if !found.has_task(&["MESSAGING"]) {
            notes.push(
                "the person lacks the task MESSAGING, so messages cannot be sent with this token".to_owned(),
            );
        }
        let accounts: Vec<String> = instagram.iter().cloned().collect();
        if !matches!(self.given, Given::Nothing)
            && let Some(kept) = self
                .kept
                .iter()
                .find(|(kept, _)| *kept == id)
                .map(|(_, kept)| kept)
            && kept.expose_secret() != token.expose_secret()
            && matches!(self.given, Given::Person(_))
        {
            let facts = self.facts(kept, &format!("the kept token of page {id}")).await?;
            let check = self.check(&id, &facts, &accounts);
            if check.status == Status::Ok && token::days_left(&facts, self.now).is_none() {
                return Ok(Page {
                    id,
                    token: kept.clone(),
                    instagram,
                    notes,
                });
            }
        }
        let facts = self.facts(&token, &format!("the token of page {id}")).await?;
        let check = self.check(&id, &facts, &accounts);
        let remedy = check.remedy.unwrap_or_default();
        match check.status {
            Status::Fail => bail!(
                "the token of page {id} does not work: {} - {remedy}",
                check.message
            ),
            Status::Warn => notes.push(format!("{} - {remedy}", check.message)),
            Status::Ok => {}
        }
        Ok(Page {
            id,
            token,
            instagram,
            notes,
        })
    }

    fn check(&self, page: &str, facts: &TokenFacts, instagram: &[String]) -> Check {
        token::page_token(page, Ok(facts), &self.app.id, instagram, self.now)
    }
}

/// The one page; or those that a person at the terminal names.
fn choose(pages: Vec<app::Page>) -> anyhow::Result<Vec<app::Page>> {
    if pages.is_empty() {
        bail!(
            "the person has no page: log in again and tick the page, ask for a role on it, or grant business_management if a \
             Business Portfolio owns it (then --page ID finds it)"
        );
    }
    if pages.len() == 1 {
        return Ok(pages);
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(usage(format!(
            "the person has {} pages, so say which with --page ID: {}",
            pages.len(),
            list(&pages)
        )));
    }
    for (number, page) in pages.iter().enumerate() {
        output::note(format_args!("{:>4}  {} {}", number + 1, page.id, page.name));
    }
    output::ask("Which? (numbers with commas, or `all`) ");
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("standard input cannot be read")?;
    if line.trim() == "all" {
        return Ok(pages);
    }
    let chosen = line.split(',').map(|number| {
        let number: Option<usize> = number.trim().parse().ok();
        number.and_then(|number| pages.get(number.checked_sub(1)?).cloned())
    });
    let chosen: Option<Vec<_>> = chosen.collect();
    chosen.ok_or_else(|| usage("expects numbers of the list, such as 1,3"))
}

fn list(pages: &[app::Page]) -> String {
    let names = pages
        .iter()
        .take(LISTED)
        .map(|page| format!("{} ({})", page.id, page.name));
    let names = names.collect::<Vec<_>>().join(", ");
    match pages.len().saturating_sub(LISTED) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

fn not_yours(page: &str, listed: &[app::Page]) -> String {
    let others = if listed.is_empty() {
        "none at all".to_owned()
    } else {
        list(listed)
    };
    format!(
        "the person has no role on page {page}, or did not tick it when logging in (a page of a Business Portfolio also needs \
         business_management); listed: {others}"
    )
}
