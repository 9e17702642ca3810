//! Recorded payloads: `events/payloads/<sender>/<case>.json`, exact bytes as sent.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::output::usage;

/// Where the payloads are, from the repository's root.
pub(crate) const DIRECTORY: &str = "events/payloads";

/// Who sends a payload, and with it where it goes and how it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sender {
    Messenger,
    Instagram,
    Fbe,
    Whatsapp,
}

impl Sender {
    const ALL: [Self; 4] = [Self::Messenger, Self::Instagram, Self::Fbe, Self::Whatsapp];

    /// The folder's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Messenger => "messenger",
            Self::Instagram => "instagram",
            Self::Fbe => "fbe",
            Self::Whatsapp => "whatsapp",
        }
    }

    /// The route it is posted to.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Messenger | Self::Instagram => "/messenger/webhook",
            Self::Fbe => "/fbe/webhook",
            Self::Whatsapp => "/whatsapp/inbound",
        }
    }
}

/// A payload, ready to be signed.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) sender: Sender,
    pub(crate) body: Vec<u8>,
}

/// The payload that `name` means: a file, or a case such as `messenger/text` or just `text`.
pub(crate) fn find(directory: &Path, name: &str, to: Option<Sender>) -> anyhow::Result<Payload> {
    if name == "-" || Path::new(name).is_file() {
        let body = read(Path::new(name))?;
        let sender = to.or_else(|| sender_of(Path::new(name))).ok_or_else(|| {
            usage(format!(
                "whose webhook is {name}? Say --to messenger, instagram, fbe or whatsapp"
            ))
        })?;
        return Ok(Payload { sender, body });
    }
    let wanted = name.strip_suffix(".json").unwrap_or(name);
    let (folder, case) = match wanted.split_once('/') {
        Some((folder, case)) => (Some(folder), case),
        None => (None, wanted),
    };
    let senders = Sender::ALL
        .into_iter()
        .filter(|sender| folder.is_none_or(|folder| folder == sender.name()));
    let found: Vec<(Sender, PathBuf)> = senders
        .map(|sender| (sender, directory.join(sender.name()).join(format!("{case}.json"))))
        .filter(|(_, path)| path.is_file())
        .collect();
    match found.as_slice() {
        [(sender, path)] => Ok(Payload {
            sender: to.unwrap_or(*sender),
            body: read(path)?,
        }),
        [] => Err(usage(unknown(directory, name))),
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|(sender, _)| format!("{}/{case}", sender.name()))
                .collect();
            Err(usage(format!("{name} is several cases: {}", names.join(", "))))
        }
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

fn unknown(directory: &Path, name: &str) -> String {
    let mut cases = BTreeSet::new();
    for sender in Sender::ALL {
        let files = std::fs::read_dir(directory.join(sender.name()))
            .into_iter()
            .flatten()
            .flatten();
        cases.extend(files.filter_map(|file| {
            let path = file.path();
            let stem = path
                .file_stem()
                .filter(|_| path.extension().is_some_and(|kind| kind == "json"))?;
            Some(format!("{}/{}", sender.name(), stem.to_string_lossy()))
        }));
    }
    if cases.is_empty() {
        return format!(
            "there is no file {name}, and no recorded case in {}",
            directory.display()
        );
    }
    let cases: Vec<String> = cases.into_iter().collect();
    format!(
        "there is no file and no recorded case {name}; cases are:\n  {}",
        cases.join("\n  ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in ["messenger/text.json", "instagram/text.json", "fbe/install.json"] {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        directory
    }

    #[test]
    fn a_case_is_found_by_its_name() {
        let directory = directory();
        let find = |name: &str| super::find(directory.path(), name, None);
        let payload = find("messenger/text").unwrap();
        assert_eq!(
            (payload.sender, payload.body.as_slice()),
            (Sender::Messenger, &b"messenger/text.json"[..])
        );
        assert_eq!(find("install").unwrap().sender, Sender::Fbe);
        assert!(find("text").unwrap_err().to_string().contains("instagram/text"));
        let unknown = find("nothing").unwrap_err();
        assert!(unknown.to_string().contains("fbe/install") && unknown.is::<crate::output::UsageError>());
    }

    #[test]
    fn a_file_tells_its_sender_by_folder_or_flag() {
        let directory = directory();
        let path = directory.path().join("instagram/text.json");
        assert_eq!(
            find(directory.path(), path.to_str().unwrap(), None)
                .unwrap()
                .sender,
            Sender::Instagram
        );
        let stray = directory.path().join("stray.json");
        std::fs::write(&stray, "{}").unwrap();
        assert!(find(directory.path(), stray.to_str().unwrap(), None).is_err());
        assert_eq!(
            find(directory.path(), stray.to_str().unwrap(), Some(Sender::Fbe))
                .unwrap()
                .sender,
            Sender::Fbe
        );
    }
}
