//! Settings: the environment of a function, read once at start.
//!
//! Every problem is collected and reported together, and the start fails; a request never does. Each
//! function reads only the groups it uses, and [`Env`] remembers the names, so that a test can hold
//! `template.yaml` against the code.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

type Lookup<'a> = Box<dyn Fn(&str) -> Option<String> + 'a>;

/// Reads variables and collects what is wrong with them.
pub struct Env<'a> {
    lookup: Lookup<'a>,
    names: BTreeSet<&'static str>,
    problems: Vec<String>,
}

/// Everything that is wrong with the settings, in one error.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the settings are not usable:\n  - {}", .0.join("\n  - "))]
pub struct ConfigError(Vec<String>);

impl<'a> Env<'a> {
    /// Reads from the process's environment.
    #[must_use]
    pub fn process() -> Env<'static> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where the environment is read"
        )]
        Env::new(|name| std::env::var(name).ok())
    }

    /// Reads from `lookup`. A variable that is set to blanks counts as not set.
    pub fn new(lookup: impl Fn(&str) -> Option<String> + 'a) -> Env<'a> {
        Env {
            lookup: Box::new(lookup),
            names: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// Reads from pairs, for tests and the local stack.
    #[must_use]
    pub fn from_pairs(pairs: &'a [(&'a str, &'a str)]) -> Env<'a> {
        Env::new(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    /// Runs `read` and gives its result, or every problem that was met.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with all problems.
    pub fn finish<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> Result<T, ConfigError> {
        let settings = read(&mut self);
        if self.problems.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError(self.problems))
        }
    }

    /// The names of all variables that were asked for so far.
    #[must_use]
    pub fn names(&self) -> &BTreeSet<&'static str> {
        &self.names
    }

    /// Notes a problem that only the reader of several settings can see.
    pub fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// The variable, if it is set to more than blanks.
    pub fn optional(&mut self, name: &'static str) -> Option<String> {
        self.names.insert(name);
        (self.lookup)(name).filter(|value| !value.trim().is_empty())
    }

    /// The variable; it is a problem if it is not set.
    pub fn required(&mut self, name: &'static str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.problem(format!("{name} is not set"));
            String::new()
        })
    }

    /// The variable or a default. Unlike the others, `""` is a value here: it switches something off.
    pub fn or(&mut self, name: &'static str, default: &str) -> String {
        self.names.insert(name);
        (self.lookup)(name).map_or_else(|| default.to_owned(), |value| value.trim().to_owned())
    }

    /// The variable read as a `T`, or the default; `expects` says in words what a value looks like.
    pub fn parsed<T: FromStr>(&mut self, name: &'static str, default: T, expects: &str) -> T {
        let Some(value) = self.optional(name) else {
            return default;
        };
        value.trim().parse().unwrap_or_else(|_| {
            self.problem(format!("{name} is `{value}`, but expects {expects}"));
            default
        })
    }

    /// A comma list, without blanks around its members.
    pub fn list(&mut self, name: &'static str, default: &str) -> Vec<String> {
        let value = self.or(name, default);
        value
            .split(',')
            .map(str::trim)
            .filter(|member| !member.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// An `http(s)` URL without a trailing slash.
    pub fn url(&mut self, name: &'static str, default: Option<&str>) -> String {
        let value = self.optional(name).or_else(|| default.map(str::to_owned));
        let Some(value) = value else {
            self.problem(format!("{name} is not set"));
            return String::new();
        };
        self.check_url(name, &value);
        value.trim().trim_end_matches('/').to_owned()
    }

    /// Notes a problem if `value` is no `http(s)` URL; `name` says which setting it is. It may hold placeholders in braces.
    pub fn check_url(&mut self, name: &str, value: &str) {
        // Placeholders are filled in later, and a URL cannot hold braces.
        let filled = value.trim().replace(['{', '}'], "");
        match url::Url::parse(&filled) {
            Ok(url) if matches!(url.scheme(), "https" | "http") && url.has_host() => {}
            _ => self.problem(format!("{name} is `{value}`, but expects an http or https URL")),
        }
    }

    /// A whole number of seconds.
    pub fn seconds(&mut self, name: &'static str, default: u64) -> Duration {
        Duration::from_secs(self.parsed(name, default, "a whole number of seconds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_reported_at_once() {
        let pairs = [("DELAY_SECONDS", "soon"), ("ENDPOINT", "nowhere")];
        let error = Env::from_pairs(&pairs)
            .finish(|env| {
                env.required("TABLE");
                env.seconds("DELAY_SECONDS", 60);
                env.url("ENDPOINT", None);
                env.url("OTHER_ENDPOINT", None);
            })
            .unwrap_err()
            .to_string();
        for part in [
            "TABLE is not set",
            "DELAY_SECONDS is `soon`, but expects a whole number of seconds",
            "ENDPOINT is `nowhere`",
            "OTHER_ENDPOINT is not set",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
