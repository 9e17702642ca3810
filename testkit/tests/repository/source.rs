//! The workspace's code as modules and the names that they take from each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

use crate::path;

/// The crates of the workspace without their tests.
pub(crate) struct Workspace {
    crates: Vec<Crate>,
}

struct Crate {
    /// As it is named in paths: `outbox_dispatch`.
    name: String,
    modules: BTreeMap<Vec<String>, Module>,
}

/// A module, in a file of its own or inside one.
#[derive(Default)]
struct Module {
    /// From the repository's root.
    file: String,
    items: BTreeSet<String>,
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// Paths of more than one segment in its code.
    paths: BTreeSet<Vec<String>>,
}

/// Where something is defined: a crate by its number, and a module of it.
#[derive(Clone, PartialEq)]
struct Place {
    number: usize,
    module: Vec<String>,
}

enum Found {
    Module(Place),
    Item(Place),
}

/// `from` takes `name` from `to`. Both are files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Use {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) name: String,
}

impl Workspace {
    /// Reads the crates in these folders.
    pub(crate) fn read(folders: &[&str]) -> Self {
        let mut crates = Vec::new();
        for folder in folders {
            let name = folder.rsplit('/').next().unwrap_or(folder).replace('-', "_");
            for (root, name) in [("lib.rs", name.clone()), ("main.rs", format!("{name} (main)"))] {
                let file = path(folder).join("src").join(root);
                if file.exists() {
                    let mut modules = BTreeMap::new();
                    read_file(&file, Vec::new(), &mut modules);
                    crates.push(Crate { name, modules });
                }
            }
        }
        Self { crates }
    }

    /// What the files take from each other. A child is a part of the file that declares it, so what it takes from its
    /// parents is left out.
    pub(crate) fn uses(&self) -> BTreeSet<Use> {
        let mut uses = BTreeSet::new();
        for (place, module) in self.modules() {
            for path in module.named() {
                let Some(Found::Item(target)) = self.resolve(&place, path, 0) else {
                    continue;
                };
                let to = &self.crates[target.number].modules[&target.module].file;
                let modules = &self.crates[place.number].modules;
                let mut parents = (0..place.module.len()).map(|depth| &modules[&place.module[..depth]].file);
                let parent = target.number == place.number && parents.any(|file| file == to);
                if *to != module.file && !parent {
                    uses.insert(Use {
                        from: module.file.clone(),
                        to: to.clone(),
                        name: path.last().unwrap().clone(),
                    });
                }
            }
        }
        uses
    }

    /// The names that lead out of the workspace, with the files that use them: crates above all.
    pub(crate) fn outside(&self) -> BTreeSet<(String, String)> {
        let mut outside = BTreeSet::new();
        for (place, module) in self.modules() {
            for path in module.named() {
                if self.resolve(&place, path, 0).is_none() {
                    outside.insert((module.file.clone(), path[0].clone()));
                }
            }
        }
        outside
    }

    fn modules(&self) -> impl Iterator<Item = (Place, &Module)> {
        self.crates.iter().enumerate().flat_map(|(number, one)| {
            one.modules.iter().map(move |(module, content)| {
                let module = module.clone();
                (Place { number, module }, content)
            })
        })
    }

    fn resolve(&self, at: &Place, path: &[String], depth: usize) -> Option<Found> {
        // Two globs may lead to each other.
        if depth > 16 {
            return None;
        }
        let (first, rest) = path.split_first()?;
        let mut found = match first.as_str() {
            "crate" => Found::Module(Place {
                module: Vec::new(),
                ..*at
            }),
            "self" => Found::Module(at.clone()),
            "super" => {
                let parents = at.module.len().checked_sub(1)?;
                Found::Module(Place {
                    module: at.module[..parents].to_vec(),
                    ..*at
                })
            }
            name => self.member(at, name, depth).or_else(|| {
                let number = self.crates.iter().position(|one| one.name == name)?;
                Some(Found::Module(Place {
                    number,
                    module: Vec::new(),
                }))
            })?,
        };
        for name in rest {
            let Found::Module(place) = &found else { break };
            found = match name.as_str() {
                "self" => Found::Module(place.clone()),
                "super" => self.resolve(place, std::slice::from_ref(name), depth + 1)?,
                name => self.member(place, name, depth)?,
            };
        }
        Some(found)
    }

    fn member(&self, place: &Place, name: &str, depth: usize) -> Option<Found> {
        let modules = &self.crates[place.number].modules;
        let child: Vec<String> = place.module.iter().cloned().chain([name.to_owned()]).collect();
        let module = &modules[&place.module];
        if modules.contains_key(&child) {
            return Some(Found::Module(Place {
                module: child,
                ..*place
            }));
        }
        if module.items.contains(name) {
            return Some(Found::Item(place.clone()));
        }
        if let Some(import) = module.imports.get(name) {
            // `use url::Url` next to `mod url` aside, an import never leads to itself.
            return self
                .resolve(place, import, depth + 1)
                .filter(|_| import[0] != name || import.len() > 1);
        }
        module
            .globs
            .iter()
            .find_map(|glob| match self.resolve(place, glob, depth + 1)? {
                Found::Module(target) if target != *place => self.member(&target, name, depth + 1),
                _ => None,
            })
    }
}

impl Module {
    fn named(&self) -> impl Iterator<Item = &Vec<String>> {
        self.imports.values().chain(&self.globs).chain(&self.paths)
    }
}

fn read_file(file: &Path, module: Vec<String>, modules: &mut BTreeMap<Vec<String>, Module>) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    read_module(file, module, &parsed.items, modules);
}

fn read_module(
    file: &Path,
    module: Vec<String>,
    items: &[Item],
    modules: &mut BTreeMap<Vec<String>, Module>,
) {
    let root = path("").components().collect::<PathBuf>();
    let relative = file.components().collect::<PathBuf>();
    let mut reader = Reader(Module {
        file: relative.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
        ..Module::default()
    });
    for item in items.iter().filter(|item| !is_test(attributes(item))) {
        if let Item::Mod(child) = item {
            let name = child.ident.to_string();
            let path: Vec<String> = module.iter().cloned().chain([name.clone()]).collect();
            match &child.content {
                Some((_, items)) => read_module(file, path, items, modules),
                None => read_file(&child_file(file, &name), path, modules),
            }
            continue;
        }
        reader.0.items.extend(name_of(item));
        reader.visit_item(item);
    }
    modules.insert(module, reader.0);
}

/// `a/mod.rs`, `a/lib.rs` and `a/main.rs` have their children beside them, `a/b.rs` in `a/b/`.
fn child_file(parent: &Path, name: &str) -> PathBuf {
    let stem = parent.file_stem().unwrap().to_str().unwrap();
    let folder = if ["mod", "lib", "main"].contains(&stem) {
        parent.parent().unwrap().to_owned()
    } else {
        parent.with_extension("")
    };
    let beside = folder.join(format!("{name}.rs"));
    if beside.exists() {
        beside
    } else {
        folder.join(name).join("mod.rs")
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let mut tokens = list.tokens.clone().into_iter();
            tokens.any(|token| matches!(&token, TokenTree::Ident(ident) if ident == "test"))
        }
        _ => false,
    })
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

struct Reader(Module);

impl Reader {
    fn import(&mut self, tree: &UseTree, mut path: Vec<String>) {
        match tree {
            UseTree::Path(step) => {
                path.push(step.ident.to_string());
                self.import(&step.tree, path);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, path.clone());
                }
            }
            UseTree::Glob(_) => self.0.globs.push(path),
            UseTree::Name(name) if name.ident == "self" => {
                self.0.imports.insert(path.last().unwrap().clone(), path);
            }
            UseTree::Name(name) => {
                path.push(name.ident.to_string());
                self.0.imports.insert(name.ident.to_string(), path);
            }
            UseTree::Rename(rename) => {
                if rename.ident != "self" {
                    path.push(rename.ident.to_string());
                }
                // `as _`: only the trait's methods are taken.
                let alias = if rename.rename == "_" {
                    path.join("::")
                } else {
                    rename.rename.to_string()
                };
                self.0.imports.insert(alias, path);
            }
        }
    }

    /// The arguments of a macro are no syntax tree: paths are what is joined by `::`.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.path(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.path(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.path(path);
    }

    fn path(&mut self, path: Vec<String>) {
        if path.len() > 1 {
            self.0.paths.insert(path);
        }
    }
}

impl Visit<'_> for Reader {
    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        self.import(&item.tree, Vec::new());
    }

    fn visit_path(&mut self, path: &syn::Path) {
        self.path(
            path.segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect(),
        );
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &syn::Macro) {
        self.path(
            call.path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect(),
        );
        self.tokens(call.tokens.clone());
    }
}
