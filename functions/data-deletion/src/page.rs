//! The status page that Meta shows the person. It loads nothing and runs nothing.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use shared::erase::{Receipt, Status};

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 1.125rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 10vh auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; line-height: 1.3; }
dt { font-weight: 600; }
dd { margin: 0 0 1rem; }
";

/// The page of a receipt. `keyword` = what a person can write to a page to be erased.
pub(crate) fn render(receipt: &Receipt, keyword: Option<&str>) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { "Deletion of your data" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { "Deletion of your data" }
                    (said(receipt.status, keyword))
                    dl {
                        (time("Asked for", Some(receipt.requested_at)))
                        (time("Done", receipt.finished_at))
                    }
                }
            }
        }
    };
    page.into_string()
}

fn said(status: Status, keyword: Option<&str>) -> Markup {
    html! {
        @match status {
            Status::Received => p { "We have received your request. Nothing has been deleted yet." },
            Status::Matched => p {
                "We have found data about you and are deleting it. Most of it is gone; we look once more for what was on its \
                 way to us when you asked."
            },
            Status::NoMatch => {
                p { "We have found no data that belongs to the account from which you asked." }
                p {
                    "That is also so if you only ever wrote to a Page or an Instagram account: there you are known by \
                     another number, which Meta does not always tell us."
                }
                @if let Some(keyword) = keyword {
                    p {
                        "To have those messages deleted too, write " strong { (keyword) } " to the Page or account, as a \
                         message of its own. It is done without anyone asking you anything else."
                    }
                }
            },
            Status::Erased => {
                p { "Your data has been deleted." }
                p {
                    "What is left is this note, which does not name you, for a year. Messages that could not be read when \
                     they came are not kept under your name and are deleted after 30 days."
                }
            },
        }
    }
}

fn time(name: &str, at: Option<Timestamp>) -> Markup {
    html! {
        @if let Some(at) = at {
            dt { (name) }
            dd { time datetime=(format!("{at:.0}")) { (at.strftime("%-d %B %Y, %H:%M UTC").to_string()) } }
        }
    }
}
