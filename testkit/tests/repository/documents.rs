use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::{code, path, read, table, template};

/// Every Markdown file that readers see, from the repository's root.
fn documents() -> Vec<String> {
    let mut documents = Vec::new();
    for folder in ["", "docs", "events"] {
        for file in std::fs::read_dir(path(folder)).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            if Path::new(&name)
                .extension()
                .is_some_and(|extension| extension == "md")
            {
                documents.push(Path::new(folder).join(name).to_str().unwrap().to_owned());
            }
        }
    }
    documents.sort();
    assert!(documents.len() > 8, "{documents:?}");
    documents
}

/// The text without its code blocks.
fn prose(document: &str) -> String {
    let text = read(document);
    text.split("```").step_by(2).collect()
}

/// As GitHub makes it from a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ => letter.is_alphanumeric().then(|| letter.to_ascii_lowercase()),
    });
    kept.collect()
}

fn anchors(document: &str) -> BTreeSet<String> {
    let text = prose(document);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut dead = Vec::new();
    for document in documents() {
        let text = prose(&document);
        let folder = Path::new(&document).parent().unwrap();
        for link in text.split("](").skip(1) {
            let (link, _) = link.split_once(')').unwrap();
            if link.starts_with("http") {
                continue;
            }
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                document.clone()
            } else {
                folder.join(file).to_str().unwrap().to_owned()
            };
            let there = path(&target).exists() && (part.is_empty() || anchors(&target).contains(part));
            if !there {
                dead.push(format!("{document}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

/// A default as the table shows it.
fn shown(parameter: &Value) -> String {
    match parameter.get("Default") {
        None => "required".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "empty".to_owned(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(other) => format!("`{other}`"),
    }
}

#[test]
fn every_parameter_is_in_the_reference_with_its_default_and_its_variable() {
    let template = template();
    let source = template.source();
    let mut variables: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for resource in source["Resources"].as_object().unwrap().values() {
        let environment = resource.pointer("/Properties/Environment/Variables");
        for (variable, value) in environment.and_then(Value::as_object).into_iter().flatten() {
            if let Some(parameter) = value["Ref"].as_str() {
                variables.entry(parameter).or_default().insert(variable);
            }
        }
    }
    let expected = source["Parameters"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, parameter)| {
            let mut names = vec![name.clone()];
            // The key of the stack's own secrets is a parameter, too, and no setting of a function's behaviour.
            let variable = variables
                .get(name.as_str())
                .filter(|_| name != "EncryptionKeyArn");
            names.extend(
                variable
                    .into_iter()
                    .flatten()
                    .map(|variable| (*variable).to_owned()),
            );
            (names, shown(parameter))
        });
    let documented = table("docs/reference.md", "setting");
    let documented = documented.iter().filter(|row| row[0].contains('`')).map(|row| {
        (
            code(&row[0]).into_iter().map(str::to_owned).collect::<Vec<_>>(),
            row[1].clone(),
        )
    });
    let expected: BTreeSet<_> = expected.collect();
    let documented: BTreeSet<_> = documented.collect();
    let missing: Vec<_> = expected.difference(&documented).collect();
    let wrong: Vec<_> = documented.difference(&expected).collect();
    assert_eq!(
        (missing, wrong),
        (vec![], vec![]),
        "(missing, wrong) in docs/reference.md"
    );
}

#[test]
fn every_route_is_in_the_reference() {
    let template = template();
    let routes = template.functions().iter().flat_map(|function| &function.routes);
    let routes: BTreeSet<String> = routes
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    let rows = table("docs/reference.md", "request");
    let documented: BTreeSet<String> = rows
        .iter()
        .flat_map(|row| code(&row[0]))
        .map(str::to_owned)
        .collect();
    assert_eq!(documented, routes);
}

/// The names of all tests.
fn tests(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.is_dir() {
            tests(&file, names);
        } else if file.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&file).unwrap();
            for after in text
                .split("test]")
                .skip(1)
                .chain(text.split("#[tokio::test(").skip(1))
            {
                let name = after.split("fn ").nth(1).and_then(|name| name.split('(').next());
                names.extend(name.map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_guarantee_has_tests_that_exist() {
    let mut names = BTreeSet::new();
    for folder in ["shared", "functions", "cli", "testkit"] {
        tests(&path(folder), &mut names);
    }
    for row in table("docs/architecture.md", "guarantee") {
        let held_by = code(&row[1]);
        assert!(!held_by.is_empty(), "{}: by no test", row[0]);
        for test in held_by {
            assert!(names.contains(test), "{}: there is no test {test}", row[0]);
        }
    }
}

/// The first deployment asks nothing: what has no default is one parameter, and samconfig.toml knows the rest.
#[test]
fn the_first_deployment_of_the_readme_is_one_line() {
    let template = template();
    let parameters = template.source()["Parameters"].as_object().unwrap();
    let without_default: Vec<_> = parameters
        .iter()
        .filter(|(_, one)| one.get("Default").is_none())
        .collect();
    assert_eq!(without_default.len(), 1, "{without_default:?}");
    assert_eq!(parameters["Stage"]["Default"], json!("dev"));
    let line = "sam build && sam deploy --parameter-overrides BrazeRestEndpoint=https://";
    for document in ["README.md", "docs/operations.md"] {
        assert!(read(document).contains(line), "{document} does not say: {line}");
    }
    let config = read("samconfig.toml");
    for setting in [
        "stack_name = ",
        "resolve_s3 = true",
        "confirm_changeset = false",
        "capabilities = [",
        "language_extensions = true",
    ] {
        assert!(config.contains(setting), "{setting}");
    }
}

/// Which version of Graph is asked is said in the code; the template, which Lambda goes by, and what people copy from the
/// documents say the same.
#[test]
fn the_version_of_graph_is_the_same_everywhere() {
    let version = shared::clients::graph::DEFAULT_VERSION;
    assert_eq!(
        template().source()["Parameters"]["GraphApiVersion"]["Default"],
        json!(version)
    );
    let mut named = 0;
    for document in documents() {
        for after in read(&document).split("graph.facebook.com/").skip(1) {
            assert!(
                after.starts_with(version),
                "{document}: {}",
                after.lines().next().unwrap()
            );
            named += 1;
        }
    }
    assert!(named > 2);
}
