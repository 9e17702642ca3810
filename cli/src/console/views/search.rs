//! Search: by user id, PSID, conversation, business, or id of an item. What is searched for is posted, so that it stands in
//! no address.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Form;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::html;
use serde::Deserialize;
use shared::messenger::key::{Channel, ContactKey, is_id};
use shared::outbox::{Entry, Lane};

use crate::console::flow::Subject;
use crate::console::page::{
    Failure, Icon, Page, View, empty, heading, item, item_address, item_name, subject,
};
use crate::console::state::Console;

/// Items that are looked through for a name.
const ITEMS: usize = 500;
/// What is shown of it.
const FOUND: usize = 100;

/// What is wanted.
#[derive(Deserialize)]
pub(crate) struct Asked {
    q: String,
}

/// An empty search.
pub(crate) async fn form(State(console): State<Arc<Console>>) -> Result<Response, Failure> {
    page(&console, &[], &[], true).await
}

/// Goes to what was found, or lists it.
pub(crate) async fn search(
    State(console): State<Arc<Console>>,
    Form(asked): Form<Asked>,
) -> Result<Response, Failure> {
    let wanted = asked.q.trim();
    if wanted.is_empty() {
        return Ok(Redirect::to("/console/search").into_response());
    }
    if let Some(number) = wanted
        .strip_prefix('#')
        .and_then(|number| number.parse::<u64>().ok())
    {
        return Ok(Redirect::to(&format!("/console/flow/{number}")).into_response());
    }
    let mut subjects: Vec<Subject> = Vec::new();
    for subject in candidates(&console, wanted).await? {
        if !subjects.contains(&subject)
            && subjects.len() < FOUND
            && console.tables.row(&subject).await?.is_some()
        {
            subjects.push(subject);
        }
    }
    let entries = items(&console, wanted).await?;
    match (subjects.as_slice(), entries.as_slice()) {
        ([Subject::Contact(id)], []) => Ok(to(&console, "people", id)),
        ([Subject::Install(id)], []) => Ok(to(&console, "businesses", id)),
        ([Subject::Conversation(id)], []) => Ok(to(&console, "conversations", id)),
        ([], [entry]) => Ok(Redirect::to(&item_address(&console, entry)).into_response()),
        (subjects, entries) => page(&console, subjects, entries, false).await,
    }
}

fn to(console: &Console, view: &str, id: &str) -> Response {
    Redirect::to(&format!("/console/{view}/{}", console.shown.address(id))).into_response()
}

/// What may be meant.
async fn candidates(console: &Console, wanted: &str) -> anyhow::Result<Vec<Subject>> {
    let tables = &console.tables;
    let mut found = Vec::new();
    if wanted.parse::<ContactKey>().is_ok() {
        found.push(Subject::Contact(wanted.to_owned()));
    }
    // A page and a PSID.
    if let Some((account, person)) = wanted.split_once([' ', '/']) {
        for channel in [Channel::Messenger, Channel::Instagram] {
            let (account_id, scoped_id) = (account.to_owned(), person.trim().to_owned());
            if is_id(&account_id) && is_id(&scoped_id) {
                let key = ContactKey::new(channel, account_id, scoped_id);
                found.push(Subject::Contact(key.to_string()));
            }
        }
    }
    found.extend(
        tables
            .contacts_of(wanted)
            .await?
            .into_iter()
            .map(Subject::Contact),
    );
    if console.local.is_some() && wanted.len() >= 4 {
        found.extend(
            tables
                .contacts_like(wanted)
                .await?
                .into_iter()
                .map(Subject::Contact),
        );
    }
    found.push(Subject::Conversation(wanted.to_owned()));
    for kind in ["user", "braze", "phone"] {
        found.push(Subject::Conversation(format!("{kind}:{wanted}")));
    }
    found.push(Subject::Install(wanted.to_owned()));
    found.extend(
        tables
            .businesses_by(wanted)
            .await?
            .into_iter()
            .map(Subject::Install),
    );
    Ok(found)
}

/// Items that wait or were given up, by their short name.
async fn items(console: &Console, wanted: &str) -> anyhow::Result<Vec<Entry>> {
    if wanted.len() != 12 || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Vec::new());
    }
    let mut found = BTreeMap::new();
    for lane in [Lane::Sync, Lane::Relay] {
        let waiting = console.tables.outbox.waiting(lane, ITEMS).await?;
        let dead = console.tables.outbox.list_dead(lane, ITEMS).await?;
        let named = waiting
            .into_iter()
            .chain(dead)
            .filter(|entry| item_name(entry) == wanted);
        found.extend(named.map(|entry| (entry.key(), entry)));
    }
    Ok(found.into_values().collect())
}

async fn page(
    console: &Console,
    subjects: &[Subject],
    entries: &[Entry],
    is_new: bool,
) -> Result<Response, Failure> {
    let now = console.clock.now();
    let content = html! {
        (heading("Search", &html! {}))
        @if subjects.is_empty() && entries.is_empty() {
            (empty(Icon::Search, if is_new { "What are you looking for?" } else { "Nothing found" }, &html! {
                p { "Search by your user id, a page and a PSID, a conversation, a business, a pixel, a Business Manager, or the id of an item as " code { "bridge dead list" } " prints it." }
            }))
        }
        ul.found {
            @for one in subjects {
                li {
                    span.mute { @match one { Subject::Contact(_) => "Person ", Subject::Install(_) => "Business ", Subject::Conversation(_) => "Conversation " } }
                    (subject(console, one))
                }
            }
        }
        ul.items { @for entry in entries { (item(console, entry, now)) } }
    };
    let page = Page {
        console,
        view: View::Search,
        title: "Search",
        content,
        form: None,
    };
    Ok(page.render().await.into_response())
}
