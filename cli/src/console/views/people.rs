//! People: contacts with window, consent and link; the Braze profile beside it.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use shared::messenger::contact::Contact;
use shared::messenger::key::{Channel, ContactKey};
use shared::outbox::Entry;
use testkit::braze::{Identifier, Profile};

use super::labels::{origin, short, standing, words};
use crate::console::flow::{Flow, Subject};
use crate::console::page::{
    Answer, Failure, Icon, Page, Tone, View, badge, empty, facts, folded, heading, icon, item, length, next,
    time,
};
use crate::console::state::{Console, Local};
use crate::console::tables::Key;
use crate::item;

/// Requests of a person that are listed.
const FLOWS: usize = 20;
/// Custom events of a profile that are listed.
const EVENTS: usize = 20;

/// Which page.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Asked {
    pub(crate) from: Option<String>,
}

impl Asked {
    /// Where the page begins.
    pub(crate) fn key(&self, console: &Console) -> Option<Key> {
        let key = console.shown.open(self.from.as_deref()?)?;
        serde_json::from_str(&key).ok()
    }
}

/// The address of the next page.
pub(crate) fn next_page(console: &Console, view: View, from: Option<&Key>) -> Option<String> {
    let key = serde_json::to_string(from?).ok()?;
    Some(format!("{}?from={}", view.address(), console.shown.address(&key)))
}

/// What a deployed stack shows instead of a list: no index lists people, and no table is read whole.
pub(crate) fn look_up(what: &str, how: &Markup) -> Markup {
    empty(
        Icon::Search,
        &format!("Look {what} up"),
        &html! {
            (how)
            form.lookup method="post" action="/console/search" {
                label.hidden for="lookup" { "Search" }
                input #lookup type="search" name="q" autocomplete="off" maxlength="500" required;
                button.primary type="submit" { "Look up" }
            }
            p.mute { "What is searched for is posted, and stands in no address." }
        },
    )
}

/// All contacts of the local stack.
pub(crate) async fn list(State(console): State<Arc<Console>>, Query(asked): Query<Asked>) -> Answer {
    let now = console.clock.now();
    let content = if console.local.is_some() {
        let page = console.tables.contacts(asked.key(&console)).await?;
        let mut contacts: Vec<Contact> = page.items.iter().filter_map(item::contact).collect();
        contacts.sort_by_key(|contact| std::cmp::Reverse(contact.last_interaction));
        html! {
            (heading("People", &html! { span.mute { (contacts.len()) @if page.next.is_some() { " on this page" } } }))
            @if contacts.is_empty() {
                (empty(Icon::Person, "Nobody yet", &html! {
                    p { "A contact is made when somebody writes to a page or an Instagram account, or comes by a link." }
                    p { a.button.primary href="/console/try" { "Let somebody write" } }
                }))
            } @else { (rows(&console, &contacts, now)) }
            (next(next_page(&console, View::People, page.next.as_ref())))
        }
    } else {
        html! {
            (heading("People", &html! {}))
            (look_up("somebody", &html! { p { "By your own user id, or by page and PSID: " code { "1134597043258171 5270000000000001" } "." } }))
        }
    };
    let page = Page {
        console: &console,
        view: View::People,
        title: "People",
        content,
        form: None,
    };
    Ok(page.render().await)
}

fn rows(console: &Console, contacts: &[Contact], now: Timestamp) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="People" {
            table.list {
                thead { tr {
                    th scope="col" { "Person" } th scope="col" { "Channel" } th scope="col" { "User" } th scope="col" { "Window" }
                    th scope="col" { "Consent" } th scope="col" { "Last seen" }
                } }
                tbody {
                    @for contact in contacts {
                        tr {
                            td { a.who href={ "/console/people/" (console.shown.address(&contact.key.to_string())) } { (console.shown.id(&contact.key.scoped_id)) } }
                            td { (channel(contact.key.channel)) }
                            td { @match contact.user_id() { Some(user) => (console.shown.id(user)), None => { span.mute { "not linked" } } } }
                            td { (window(contact, now)) }
                            td { (consent(contact)) }
                            td { @if let Some(at) = contact.last_interaction { (time(at, now)) } @else { span.mute { "–" } } }
                        }
                    }
                }
            }
        }
    }
}

fn channel(channel: Channel) -> &'static str {
    match channel {
        Channel::Messenger => "Messenger",
        Channel::Instagram => "Instagram",
    }
}

/// Whether one may still write.
fn window(contact: &Contact, now: Timestamp) -> Markup {
    match contact.window_closes_at() {
        Some(at) if at > now => {
            html! { (badge(Tone::Good, Icon::Clock, "open")) " " span.mute { "for " (length(at.duration_since(now))) } }
        }
        Some(at) => html! { (badge(Tone::Quiet, Icon::Clock, "closed")) " " span.mute { (time(at, now)) } },
        None => html! { span.mute { "never opened" } },
    }
}

fn consent(contact: &Contact) -> Markup {
    match (contact.is_opted_out(), contact.is_unreachable()) {
        (Some(true), _) => badge(Tone::Bad, Icon::Cross, "opted out"),
        (_, true) => badge(Tone::Warn, Icon::Alert, "unreachable"),
        (Some(false), _) => badge(Tone::Good, Icon::Check, "opted in"),
        (None, _) => html! { span.mute { "nothing said" } },
    }
}

/// One contact.
pub(crate) async fn one(State(console): State<Arc<Console>>, Path(part): Path<String>) -> Answer {
    let gone = || Failure::not_found("No such contact is stored, or this address is another console’s.");
    let key = console.shown.open(&part).ok_or_else(gone)?;
    let subject = Subject::Contact(key.clone());
    let row = console.tables.row(&subject).await?.ok_or_else(gone)?;
    let contact = item::contact(&row).ok_or_else(gone)?;
    let entries = console.tables.items_of(&subject).await?;
    let now = console.clock.now();
    let shown = &console.shown;
    let title = shown.id(&contact.key.scoped_id);
    let referral = contact.referral.as_ref().map(|referral| &referral.value);
    let content = html! {
        p.crumbs { a href="/console/people" { "People" } " / " (channel(contact.key.channel)) " on " code { (contact.key.account_id) } }
        (heading(&title, &html! { (window(&contact, now)) " " (consent(&contact)) }))
        div.cards {
            section.card {
                h2 { "What the bridge knows" }
                (facts(vec![
                    ("User", Some(html! {
                        @if let Some(user) = contact.user_id() {
                            strong { (shown.id(user)) }
                            @if let Some(link) = &contact.link { " " span.mute { "by " (words(link.value.via.as_str())) ", " (time(link.at, now)) } }
                        } @else { span.mute { "not linked" } }
                    })),
                    ("Window", Some(html! {
                        @if let Some(at) = contact.window_closes_at() { @if at > now { "closes " } @else { "closed " } (time(at, now)) }
                        @else { span.mute { "never opened" } }
                    })),
                    ("Last seen", contact.last_interaction.map(|at| time(at, now))),
                    ("First seen", Some(time(contact.first_seen, now))),
                    ("Came from", referral.and_then(|referral| referral.source.as_deref()).map(|source| html! { (words(source)) })),
                    ("Ad", referral.and_then(|referral| referral.ad_id.as_deref()).map(|ad| html! { code { (ad) } })),
                    ("Consent", Some(consent(&contact))),
                    ("PSID or IGSID", Some(html! { code { (shown.id(&contact.key.scoped_id)) } })),
                ]))
                @if let Some(text) = row.get("facts").and_then(|facts| shown.json(facts)) { (folded("facts", "All facts, as stored", &text)) }
            }
            @if let Some(local) = &console.local { (profile(local, &contact, now)) }
        }
        (followed(&console, &subject, &entries, now))
    };
    let page = Page {
        console: &console,
        view: View::People,
        title: &title,
        content,
        form: None,
    };
    Ok(page.render().await)
}

/// What is to leave and what left of somebody, and the requests about them.
pub(crate) fn followed(console: &Console, subject: &Subject, entries: &[Entry], now: Timestamp) -> Markup {
    html! {
        section {
            h2 { "What is to leave, and what left" }
            @if entries.is_empty() { p.mute { "Nothing." } }
            ul.items { @for entry in entries { (item(console, entry, now)) } }
        }
        @if let Some(local) = &console.local { (flows(console, local, subject, now)) }
    }
}

/// The profile that the fake Braze has of a contact.
fn profile(local: &Local, contact: &Contact, now: Timestamp) -> Markup {
    let Some(braze) = &local.fakes.braze else {
        return html! { section.card { h2 { "Braze" } p.mute { "A real Braze is configured; look there." } } };
    };
    let name = contact.key.scoped_id.as_str();
    let of_user = contact
        .user_id()
        .and_then(|user| braze.find(&Identifier::ExternalId(user.to_owned())));
    let is_alias = |profile: &Profile| {
        profile
            .aliases
            .values()
            .any(|alias| alias_is(alias, &contact.key))
    };
    let found = of_user.or_else(|| braze.profiles().into_iter().find(is_alias));
    let Some(profile) = found else {
        return html! {
            section.card {
                h2 { "Braze profile" }
                p.mute { "Braze has no profile with " code { (short(name)) } " yet: it is made by the first sync." }
            }
        };
    };
    html! {
        section.card {
            h2 { "Braze profile" }
            (facts(vec![
                ("External id", Some(html! { @if let Some(id) = &profile.external_id { strong { (id) } } @else { span.mute { "none: known by an alias alone" } } })),
                ("Aliases", (!profile.aliases.is_empty()).then(|| html! { @for (label, alias) in &profile.aliases { div { code { (label) } " " (alias) } } })),
            ]))
            @if !profile.attributes.is_empty() {
                h3 { "Attributes" }
                dl.facts.code { @for (name, value) in &profile.attributes { div { dt { (name) } dd dir="auto" { (plain(value)) } } } }
            }
            @if !profile.events.is_empty() {
                h3 { "Custom events" }
                ul.events {
                    @for event in profile.events.iter().rev().take(EVENTS) {
                        li { code { (event.name) } " " span.mute { @match event.time.parse::<Timestamp>() { Ok(at) => (time(at, now)), Err(_) => (event.time) } } }
                    }
                }
                @if profile.events.len() > EVENTS { p.mute { "The last " (EVENTS) " of " (profile.events.len()) "." } }
            }
        }
    }
}

/// Whether an alias names this contact: some hold the page too.
fn alias_is(alias: &str, key: &ContactKey) -> bool {
    alias == key.scoped_id.as_str()
        || alias.ends_with(&format!("#{}", key.scoped_id.as_str()))
        || alias == key.to_string()
}

/// A value without quotes around a text.
pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The requests about a subject that are remembered.
pub(crate) fn flows(console: &Console, local: &Local, subject: &Subject, now: Timestamp) -> Markup {
    let all = local.flows.all();
    let about: Vec<&Arc<Flow>> = all
        .iter()
        .filter(|flow| flow.subjects.contains(subject))
        .take(FLOWS)
        .collect();
    html! {
        section {
            h2 { "Requests" }
            @if about.is_empty() { p.mute { "None that is remembered." } }
            ul.requests {
                @for flow in about {
                    @let (tone, picture, word) = standing(flow.standing(now));
                    @let (sender, label) = origin(flow.origin);
                    li {
                        a href={ "/console/flow/" (flow.number) } { (icon(sender)) (label) " " strong { @if let Some(event) = flow.events.first() { (words(&event.name)) } } }
                        @if let Some(said) = flow.events.first().and_then(|event| event.said.as_deref()) { " " bdi { (short(&console.shown.text(said))) } }
                        " " span.mute { (time(flow.at, now)) } " " (badge(tone, picture, word))
                    }
                }
            }
        }
    }
}
