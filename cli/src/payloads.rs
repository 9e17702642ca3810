//! Recorded payloads, and what their senders put on a request.
//!
//! They are compiled in from `events/payloads/<sender>/<case>.json` (`.form` for a form), exact bytes as sent.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use include_dir::{Dir, include_dir};
use secrecy::{ExposeSecret as _, SecretString};
use shared::webhook::signature;

use crate::output::usage;

static RECORDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../events/payloads");

/// Who sends a payload, and with it where it goes and how it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Sender {
    /// Meta, for a Facebook page.
    Messenger,
    /// Meta, for an Instagram account.
    Instagram,
    /// Meta, for Facebook Business Extension.
    Fbe,
    /// Braze, with a message that somebody wrote on WhatsApp.
    Whatsapp,
    /// Braze, with a message to somebody on Messenger or Instagram.
    MessengerSend,
}

impl Sender {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Messenger,
        Self::Instagram,
        Self::Fbe,
        Self::Whatsapp,
        Self::MessengerSend,
    ];

    /// The folder's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Messenger => "messenger",
            Self::Instagram => "instagram",
            Self::Fbe => "fbe",
            Self::Whatsapp => "whatsapp",
            Self::MessengerSend => "messenger-send",
        }
    }

    /// The route it is posted to.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Messenger | Self::Instagram => "/messenger/webhook",
            Self::Fbe => "/fbe/webhook",
            Self::Whatsapp => "/whatsapp/inbound",
            Self::MessengerSend => "/messenger/send",
        }
    }
}

/// What proves to the stack who sends.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Meta's: it signs the bytes.
    AppSecret(SecretString),
    /// Braze's: it goes along.
    BearerToken(SecretString),
}

/// A payload, ready to be signed.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Who sends it.
    pub sender: Sender,
    /// `messenger/message_text`, or a file's name.
    pub name: String,
    /// The exact bytes.
    pub body: Vec<u8>,
}

impl Payload {
    /// The headers that its sender puts on it.
    #[must_use]
    pub fn headers(&self, credential: &Credential) -> Vec<(&'static str, String)> {
        // Braze sends forms too; nobody else does.
        let form = Path::new(&self.name)
            .extension()
            .is_some_and(|kind| kind == "form");
        let content_type = if form {
            "application/x-www-form-urlencoded"
        } else {
            "application/json"
        };
        let proof = match credential {
            Credential::AppSecret(secret) => (signature::HEADER, signature::sign(secret, &self.body)),
            Credential::BearerToken(token) => ("authorization", format!("Bearer {}", token.expose_secret())),
        };
        vec![("content-type", content_type.to_owned()), proof]
    }
}

/// Every recorded payload of `sender`, by name.
#[must_use]
pub fn recorded(sender: Sender) -> Vec<Payload> {
    let files = RECORDED.get_dir(sender.name()).into_iter().flat_map(Dir::files);
    let mut payloads: Vec<Payload> = files
        .filter_map(|file| {
            let path = file.path().to_str()?;
            Some(Payload {
                sender,
                name: path.strip_suffix(".json").unwrap_or(path).to_owned(),
                body: file.contents().to_vec(),
            })
        })
        .collect();
    payloads.sort_by(|one, other| one.name.cmp(&other.name));
    payloads
}

/// The payload that `name` means: a file, or a case such as `messenger/message_text` or just `message_text`.
pub(crate) fn find(name: &str, to: Option<Sender>) -> anyhow::Result<Payload> {
    if name == "-" || Path::new(name).is_file() {
        let body = read(Path::new(name))?;
        let sender = to.or_else(|| sender_of(Path::new(name))).ok_or_else(|| {
            usage(format!(
                "whose request is {name}? Say --to messenger, instagram, fbe, whatsapp or messenger-send"
            ))
        })?;
        let name = name.to_owned();
        return Ok(Payload { sender, name, body });
    }
    let wanted = name.strip_suffix(".json").unwrap_or(name);
    let all: Vec<Payload> = Sender::ALL.into_iter().flat_map(recorded).collect();
    let fits = |payload: &&Payload| {
        payload.name == wanted
            || payload
                .name
                .split_once('/')
                .is_some_and(|(_, case)| case == wanted)
    };
    let found: Vec<&Payload> = all.iter().filter(fits).collect();
    match found.as_slice() {
        [payload] => Ok(Payload {
            sender: to.unwrap_or(payload.sender),
            ..(*payload).clone()
        }),
        [] => Err(usage(unknown(wanted, &all))),
        several => Err(usage(format!(
            "{name} is several cases: {}",
            names(several.iter().copied()).join(", ")
        ))),
    }
}

/// The bytes of a file, or of standard input for `-`.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut body = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut body)
            .context("cannot read standard input")?;
        return Ok(body);
    }
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn sender_of(path: &Path) -> Option<Sender> {
    let folder = path.parent()?.file_name()?;
    Sender::ALL.into_iter().find(|sender| folder == sender.name())
}

fn names<'a>(payloads: impl Iterator<Item = &'a Payload>) -> Vec<&'a str> {
    payloads.map(|payload| payload.name.as_str()).collect()
}

/// Tells the cases that hold the name, or else all of them.
fn unknown(name: &str, all: &[Payload]) -> String {
    let case = name.rsplit('/').next().unwrap_or(name);
    let near = names(all.iter().filter(|payload| payload.name.contains(case)));
    let (intro, cases) = if near.is_empty() {
        ("cases are", names(all.iter()))
    } else {
        ("did you mean", near)
    };
    format!(
        "there is no file and no recorded case {name}; {intro}:\n  {}",
        cases.join("\n  ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_in_payloads_are_those_of_the_repository() {
        for sender in Sender::ALL {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../events/payloads")
                .join(sender.name());
            let files = std::fs::read_dir(&folder).unwrap().count();
            let recorded = recorded(sender);
            assert!(files > 10 && recorded.len() == files, "{}", sender.name());
            for payload in recorded {
                let case = payload.name.split_once('/').unwrap().1;
                let as_is = folder.join(case);
                let file = if as_is.is_file() {
                    as_is
                } else {
                    folder.join(format!("{case}.json"))
                };
                assert!(payload.body == std::fs::read(file).unwrap(), "{}", payload.name);
            }
        }
    }

    #[test]
    fn a_case_is_found_by_its_name() {
        let payload = find("messenger/message_text", None).unwrap();
        assert_eq!(
            (payload.sender, payload.name.as_str()),
            (Sender::Messenger, "messenger/message_text")
        );
        assert_eq!(
            find("postback_get_started.json", None).unwrap().sender,
            Sender::Messenger
        );
        let several = find("message_text", None).unwrap_err().to_string();
        assert!(several.contains("instagram/message_text"), "{several}");
        let near = find("messenger/text", None).unwrap_err();
        assert!(
            near.to_string().contains("messenger/message_text") && near.is::<crate::output::UsageError>()
        );
        assert!(
            find("zebra", None)
                .unwrap_err()
                .to_string()
                .contains("fbe/install")
        );
    }

    #[test]
    fn a_file_tells_its_sender_by_folder_or_flag() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("instagram/text.json");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "{}").unwrap();
        let found = find(path.to_str().unwrap(), None).unwrap();
        assert_eq!(
            (found.sender, found.body.as_slice()),
            (Sender::Instagram, &b"{}"[..])
        );
        let stray = directory.path().join("stray.json");
        std::fs::write(&stray, "{}").unwrap();
        let stray = stray.to_str().unwrap();
        assert!(find(stray, None).is_err());
        assert_eq!(find(stray, Some(Sender::Fbe)).unwrap().sender, Sender::Fbe);
    }
}
