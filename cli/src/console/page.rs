//! The frame around every view, and the pieces that views are made of.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use maud::{DOCTYPE, Markup, html};
use shared::messenger::key::ContactKey;
use shared::outbox::{Entry, Kind, Lane, Status};
use shared::telemetry;

use super::assets;
use super::flow::{Party, Subject};
use super::state::Console;

/// What a handler answers.
pub(crate) type Answer = Result<Html<String>, Failure>;

/// A view of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Flow,
    People,
    Conversations,
    Businesses,
    Waiting,
    Try,
    Search,
}

impl View {
    const SHOWN: [Self; 6] = [
        Self::Flow,
        Self::People,
        Self::Conversations,
        Self::Businesses,
        Self::Waiting,
        Self::Try,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Flow => "Flow",
            Self::People => "People",
            Self::Conversations => "Conversations",
            Self::Businesses => "Businesses",
            Self::Waiting => "Waiting",
            Self::Try => "Try",
            Self::Search => "Search",
        }
    }

    pub(crate) fn address(self) -> &'static str {
        match self {
            Self::Flow => "/console",
            Self::People => "/console/people",
            Self::Conversations => "/console/conversations",
            Self::Businesses => "/console/businesses",
            Self::Waiting => "/console/waiting",
            Self::Try => "/console/try",
            Self::Search => "/console/search",
        }
    }

    fn icon(self) -> Icon {
        match self {
            Self::Flow => Icon::Flow,
            Self::People => Icon::Person,
            Self::Conversations => Icon::Chat,
            Self::Businesses => Icon::Shop,
            Self::Waiting => Icon::Clock,
            Self::Try => Icon::Play,
            Self::Search => Icon::Search,
        }
    }
}

/// Small pictures, in the text's colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Icon {
    Flow,
    Person,
    Chat,
    Shop,
    Clock,
    Play,
    Search,
    Check,
    Cross,
    Alert,
    Lock,
    Dots,
    Dash,
    Box,
    Send,
}

/// A small picture. The word beside it says the same.
pub(crate) fn icon(icon: Icon) -> Markup {
    let path = match icon {
        Icon::Flow => "M2 4h5M2 8h12M9 12h5",
        Icon::Person => "M8 8a2.75 2.75 0 1 0 0-5.5A2.75 2.75 0 0 0 8 8ZM2.75 13.5a5.25 5.25 0 0 1 10.5 0",
        Icon::Chat => "M2.5 3.5h11v7.5h-6l-3 2.5V11h-2z",
        Icon::Shop => {
            "M2.5 6.5 3.5 3h9l1 3.5M3.5 8v5.5h9V8M2.5 6.5a1.8 1.8 0 0 0 3.67 0 1.8 1.8 0 0 0 3.66 0 1.8 1.8 0 0 0 3.67 0"
        }
        Icon::Clock => "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12ZM8 4.75V8l2.25 1.5",
        Icon::Play => "M4.5 3v10l8-5z",
        Icon::Search => "M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9ZM10.4 10.4l3.1 3.1",
        Icon::Check => "M3 8.5 6.5 12 13 4.5",
        Icon::Cross => "m4 4 8 8M12 4l-8 8",
        Icon::Alert => "M8 2.5 14.25 13.5H1.75zM8 6.5v3M8 11.5v.01",
        Icon::Lock => "M4 7.5h8v6H4zM5.5 7.5v-2a2.5 2.5 0 0 1 5 0v2",
        Icon::Dots => "M3.5 8h.01M8 8h.01M12.5 8h.01",
        Icon::Dash => "M4 8h8",
        Icon::Box => "M2.5 5 8 2.5 13.5 5v6L8 13.5 2.5 11zM2.5 5 8 7.5 13.5 5M8 7.5v6",
        Icon::Send => "M2.5 8h10M9 4.5 12.5 8 9 11.5",
    };
    html! {
        svg.icon viewBox="0 0 16 16" aria-hidden="true" focusable="false" { path d=(path) {} }
    }
}

/// How something stands: a colour, never alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Busy,
    Warn,
    Bad,
    Quiet,
}

impl Tone {
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Busy => "busy",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Quiet => "quiet",
        }
    }
}

/// How something stands, in a picture, a colour and words.
pub(crate) fn badge(tone: Tone, picture: Icon, text: &str) -> Markup {
    html! { span.badge.(tone.class()) { (icon(picture)) (text) } }
}

/// What a page holds beside its content.
pub(crate) struct Page<'a> {
    pub(crate) console: &'a Console,
    pub(crate) view: View,
    pub(crate) title: &'a str,
    /// Drawn anew when something happens.
    pub(crate) content: Markup,
    /// Not drawn anew: forms that people write in.
    pub(crate) form: Option<Markup>,
}

impl Page<'_> {
    /// The page as text.
    pub(crate) async fn render(self) -> Html<String> {
        let console = self.console;
        let dead = dead(console).await;
        let now = console.clock.now();
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                (head(&format!("{} · {}", self.title, console.name)))
                body data-live="/console/live" data-now=(now.as_millisecond()) {
                    a.skip href="#content" { "Skip to content" }
                    (side(console, self.view, dead))
                    div.main {
                        div.top {
                            form.search role="search" method="post" action="/console/search" {
                                label.hidden for="search" { "Search" }
                                (icon(Icon::Search))
                                input #search type="search" name="q" autocomplete="off" maxlength="500"
                                    placeholder="User id, PSID, conversation, business, item…";
                                kbd aria-hidden="true" { "/" }
                            }
                            div #live.live role="status" { span.dot {} span #live-text { "Live" } }
                        }
                        div #refresh hx-get="/console" hx-trigger="changed" hx-target="#content"
                            hx-select="#content" hx-swap="outerHTML" hx-select-oob="#side" {}
                        main #content tabindex="-1" {
                            (banner(console))
                            (self.content)
                        }
                        @if let Some(form) = self.form { div.form { (form) } }
                    }
                }
            }
        };
        Html(page.into_string())
    }
}

fn head(title: &str) -> Markup {
    // Nothing inline: the policy of the page forbids it.
    let config = r#"{"includeIndicatorStyles":false,"allowEval":false,"allowScriptTags":false,"selfRequestsOnly":true,"historyCacheSize":0,"refreshOnHistoryMiss":true,"scrollIntoViewOnBoost":false}"#;
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="htmx-config" content=(config);
            title { (title) }
            link rel="icon" href=(assets::address("icon.svg"));
            link rel="stylesheet" href=(assets::address("console.css"));
            script defer src=(assets::address("htmx.min.js")) {}
            script defer src=(assets::address("console.js")) {}
        }
    }
}

async fn dead(console: &Console) -> usize {
    let mut dead = 0;
    for lane in [Lane::Sync, Lane::Relay] {
        dead += console
            .tables
            .outbox
            .list_dead(lane, 100)
            .await
            .map_or(0, |dead| dead.len());
    }
    dead
}

fn side(console: &Console, current: View, dead: usize) -> Markup {
    html! {
        header #side.side {
            a.brand href="/console" {
                svg.logo viewBox="0 0 32 32" aria-hidden="true" {
                    path d="M3 22h26M6 22c0-11 20-11 20 0M11 22v-6.6M16 22v-8.3M21 22v-6.6" {}
                }
                span { "meta-braze-bridge" }
            }
            p.stack {
                @if console.local.is_some() { "local stack" } @else { (console.name) " · read only" }
                @if console.local.is_none() && !console.shown.is_open() { span.note { "people are hidden" } }
            }
            nav aria-label="Views" {
                ul {
                    @for view in View::SHOWN {
                        @if view != View::Try || console.local.is_some() {
                            li {
                                a href=(view.address()) aria-current=[(view == current).then_some("page")] {
                                    (icon(view.icon()))
                                    span { (view.label()) }
                                    @if view == View::Waiting && dead > 0 {
                                        span.count title="given up" { (dead) span.hidden { " given up" } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Which faults are on: else people wonder.
fn banner(console: &Console) -> Markup {
    let on = console
        .local
        .as_ref()
        .map(|local| local.faults.on())
        .unwrap_or_default();
    html! {
        @for (party, failure) in on {
            form.banner method="post" action="/console/try/fault" {
                (icon(Icon::Alert))
                span { strong { (party.label()) } " fails on purpose: " (failure.label(party)) }
                input type="hidden" name="party" value=(party.name());
                button.small type="submit" name="failure" value="" { "Switch off" }
            }
        }
    }
}

/// A page that could not be made.
pub(crate) struct Failure(StatusCode, String);

impl Failure {
    pub(crate) fn not_found(what: &str) -> Self {
        Self(StatusCode::NOT_FOUND, what.to_owned())
    }

    pub(crate) fn wrong(what: &str) -> Self {
        Self(StatusCode::BAD_REQUEST, what.to_owned())
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(StatusCode::BAD_GATEWAY, format!("{:#}", error.into()))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                (head("Not shown"))
                body.bare {
                    main #content {
                        div.empty {
                            (icon(Icon::Alert))
                            h1 { "This cannot be shown" }
                            p { (self.1) }
                            p { a.button href="/console" { "Back to the flow" } }
                        }
                    }
                }
            }
        };
        (self.0, Html(page.into_string())).into_response()
    }
}

/// A heading with what belongs beside it.
pub(crate) fn heading(title: &str, beside: &Markup) -> Markup {
    html! { div.heading { h1 { (title) } div.beside { (beside) } } }
}

/// What is there when nothing is.
pub(crate) fn empty(picture: Icon, title: &str, body: &Markup) -> Markup {
    html! { div.empty { (icon(picture)) h2 { (title) } (body) } }
}

/// A time: how long ago, with the exact one behind it.
pub(crate) fn time(at: Timestamp, now: Timestamp) -> Markup {
    let exact = format!("{at:.3}");
    html! { time datetime=(exact) title=(exact) { (relative(at, now)) } }
}

/// As the script on the page says it too.
fn relative(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs();
    let words = match seconds.unsigned_abs() {
        0..=2 => return "now".to_owned(),
        s @ 3..=89 => format!("{s} s"),
        s @ 90..=5_399 => format!("{} min", (s + 30) / 60),
        s @ 5_400..=129_599 => format!("{} h", (s + 1_800) / 3_600),
        s => format!("{} days", (s + 43_200) / 86_400),
    };
    if seconds < 0 {
        format!("in {words}")
    } else {
        format!("{words} ago")
    }
}

/// A duration, for people.
pub(crate) fn length(duration: SignedDuration) -> String {
    match duration.as_secs().unsigned_abs() {
        s @ 0..=89 => format!("{s} s"),
        s @ 90..=5_399 => format!("{} min", (s + 30) / 60),
        s @ 5_400..=129_599 => format!("{} h", (s + 1_800) / 3_600),
        s => format!("{} days", (s + 43_200) / 86_400),
    }
}

/// Names and values, of those that there are.
pub(crate) fn facts(rows: Vec<(&str, Option<Markup>)>) -> Markup {
    html! {
        dl.facts {
            @for (name, value) in rows {
                @if let Some(value) = value { div { dt { (name) } dd { (value) } } }
            }
        }
    }
}

/// JSON or a text, folded. `id` keeps it open when the page is drawn anew.
pub(crate) fn folded(id: &str, title: &str, text: &str) -> Markup {
    html! {
        details id=(id) { summary { (title) } pre tabindex="0" role="region" aria-label=(title) { code { (text) } } }
    }
}

/// Whom something is about, with the way there.
pub(crate) fn subject(console: &Console, subject: &Subject) -> Markup {
    let shown = &console.shown;
    match subject {
        Subject::Contact(id) => match id.parse::<ContactKey>() {
            Ok(key) => html! {
                a.who href={ "/console/people/" (shown.address(id)) } { (shown.id(key.scoped_id.as_str())) }
            },
            Err(_) => {
                html! { span.who title="a plugin’s user_ref" { (shown.id(id.rsplit(':').next().unwrap_or(id))) } }
            }
        },
        // A business is no person.
        Subject::Install(id) => html! {
            @if let Some(manager) = shared::fbe::event::business_manager_of(id) {
                span.who { "Business Manager " (manager) }
            } @else {
                a.who href={ "/console/businesses/" (shown.address(id)) } { (id) }
            }
        },
        Subject::Conversation(id) => html! {
            a.who href={ "/console/conversations/" (shown.address(id)) } { (shown.id(id)) }
        },
    }
}

/// What an outbox item does, in words.
pub(crate) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::ContactSync => "Sync profile to Braze",
        Kind::ContactEvent => "Custom event to Braze",
        Kind::MessengerSend => "Send through Meta",
        Kind::FbeExchangeToken => "Exchange token at Meta",
        Kind::FbeReconcile => "Compare with Meta",
        Kind::FbeNotify => "Notify the business",
        Kind::FbePartnerNotify => "Notify the partner",
        Kind::FbeReconcileManager => "Compare a Business Manager",
        Kind::FbeCatalogPush => "Push the catalog",
        Kind::HealthCheck => "Check subscriptions",
        Kind::Erase => "Erase",
        Kind::RelayMessage => "Hand to the external system",
        Kind::RelayReply => "Reply through Braze",
    }
}

/// How an outbox item stands.
pub(crate) fn item_badge(entry: &Entry, now: Timestamp) -> Markup {
    let failing = entry.attempts > 0 || entry.reason.is_some();
    match entry.status {
        Status::Done => badge(Tone::Good, Icon::Check, "done"),
        Status::Dead => badge(Tone::Bad, Icon::Cross, "given up"),
        Status::Pending if failing => badge(Tone::Warn, Icon::Alert, "failing"),
        Status::Pending if entry.not_before.is_some_and(|at| at > now) => {
            badge(Tone::Quiet, Icon::Clock, "later")
        }
        Status::Pending => badge(Tone::Busy, Icon::Dots, "pending"),
    }
}

/// The address of an outbox item.
pub(crate) fn item_address(console: &Console, entry: &Entry) -> String {
    let id = format!("{}\n{}", entry.subject, entry.event_key);
    format!("/console/waiting/item/{}", console.shown.address(&id))
}

/// The short name of an outbox item, as `bridge dead list` prints it.
pub(crate) fn item_name(entry: &Entry) -> String {
    telemetry::pseudonym(&format!("{}\n{}", entry.subject, entry.event_key))
}

/// A line for an outbox item.
pub(crate) fn item(console: &Console, entry: &Entry, now: Timestamp) -> Markup {
    html! {
        li.item {
            a href=(item_address(console, entry)) { (kind(entry.kind)) }
            (item_badge(entry, now))
            @if let Some(reason) = &entry.reason { (self::reason(reason)) }
            @if entry.attempts > 0 { span.mute { (entry.attempts) @if entry.attempts == 1 { " attempt" } @else { " attempts" } } }
            @if entry.status == Status::Pending && let Some(due) = entry.not_before.max(entry.due_at) {
                span.mute { "next " (time(due, now)) }
            }
        }
    }
}

/// A reason, with what the operations page says of it.
pub(crate) fn reason(code: &str) -> Markup {
    html! { code.reason title=[meaning(code)] { (code) } }
}

/// What a reason means, in the words of the documents.
pub(crate) fn meaning(code: &str) -> Option<&'static str> {
    static ROWS: LazyLock<Vec<(&'static str, &'static str)>> = LazyLock::new(|| {
        let document = include_str!("../../../docs/operations.md");
        let table = document.split("| reason | means |").nth(1).unwrap_or_default();
        let rows = table
            .trim_start()
            .lines()
            .take_while(|line| line.starts_with('|'));
        rows.filter_map(|row| row.trim_matches('|').split_once('|'))
            .collect()
    });
    let code = code.split(':').next().unwrap_or(code);
    let wanted = format!("`{code}`");
    let row = ROWS.iter().find(|(codes, _)| codes.contains(&wanted));
    row.map(|(_, means)| means.trim())
}

/// Where a call went, and what came of it.
pub(crate) fn call_badge(status: Option<u16>) -> Markup {
    match status {
        Some(code @ ..400) => badge(Tone::Good, Icon::Check, &code.to_string()),
        Some(code) => badge(Tone::Bad, Icon::Cross, &code.to_string()),
        None => badge(Tone::Bad, Icon::Cross, "cut off"),
    }
}

/// Where a third party is shown.
pub(crate) fn party(party: Party) -> Markup {
    html! { span.party { (icon(Icon::Send)) (party.label()) } }
}

/// The way to the next page.
pub(crate) fn next(address: Option<String>) -> Markup {
    html! {
        @if let Some(address) = address { p.next { a.button href=(address) { "Next page" } } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_relative_with_the_exact_one_behind() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let ago = |seconds: i64| relative(now - SignedDuration::from_secs(seconds), now);
        assert_eq!(
            [ago(1), ago(12), ago(300), ago(7_200), ago(-120)],
            ["now", "12 s ago", "5 min ago", "2 h ago", "in 2 min"]
        );
        assert_eq!(ago(3 * 86_400), "3 days ago");
        let shown = time(now, now).into_string();
        assert!(shown.contains("2027-01-15T08:00:00.000Z"), "{shown}");
    }

    #[test]
    fn a_reason_has_the_words_of_the_documents() {
        assert!(meaning("window_closed").unwrap().contains("cannot be sent"));
        assert_eq!(meaning("no_such_reason"), None);
    }
}
