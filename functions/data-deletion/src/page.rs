//! The status page that Meta shows the person. It loads nothing and runs nothing.

use std::fmt::Write as _;

use jiff::Timestamp;
use shared::erase::{Receipt, Status};

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>Deletion of your data</title>
<style>
:root { color-scheme: light dark; }
body { font: 1.125rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 10vh auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; line-height: 1.3; }
dt { font-weight: 600; }
dd { margin: 0 0 1rem; }
</style>
</head>
<body>
<main>
<h1>Deletion of your data</h1>
"#;

const FOOT: &str = "</main>\n</body>\n</html>\n";

/// The page of a receipt. `keyword` = what a person can write to a page to be erased.
pub(crate) fn render(receipt: &Receipt, keyword: Option<&str>) -> String {
    let mut page = HEAD.to_owned();
    let mut paragraph = |text: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(page, "<p>{text}</p>");
    };
    match receipt.status {
        Status::Received => paragraph("We have received your request. Nothing has been deleted yet."),
        Status::Matched => paragraph(
            "We have found data about you and are deleting it. Most of it is gone; we look once more for what was on its \
             way to us when you asked.",
        ),
        Status::NoMatch => {
            paragraph("We have found no data that belongs to the account from which you asked.");
            paragraph(
                "That is also so if you only ever wrote to a Page or an Instagram account: there you are known by \
                 another number, which Meta does not always tell us.",
            );
            if let Some(keyword) = keyword {
                paragraph(&format!(
                    "To have those messages deleted too, write <strong>{}</strong> to the Page or account, as a message of \
                     its own. It is done without anyone asking you anything else.",
                    escaped(keyword)
                ));
            }
        }
        Status::Erased => {
            paragraph("Your data has been deleted.");
            paragraph(
                "What is left is this note, which does not name you, for a year. Messages that could not be read when they \
                 came are not kept under your name and are deleted after 30 days.",
            );
        }
    }
    page.push_str("<dl>\n");
    time(&mut page, "Asked for", Some(receipt.requested_at));
    time(&mut page, "Done", receipt.finished_at);
    page.push_str("</dl>\n");
    page.push_str(FOOT);
    page
}

fn time(page: &mut String, name: &str, at: Option<Timestamp>) {
    if let Some(at) = at {
        let shown = at.strftime("%-d %B %Y, %H:%M UTC");
        let _ = writeln!(
            page,
            "<dt>{name}</dt><dd><time datetime=\"{at:.0}\">{shown}</time></dd>"
        );
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}
