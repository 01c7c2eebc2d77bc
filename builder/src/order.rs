//! Order expansion: from nested groups to the flat groups that detection tries, in the order it tries them.

use std::rc::Rc;

use crate::buildpack::{Buildpack, Buildpacks, Kind};
use crate::errors::Failure;
use crate::formats::{Order, OrderEntry, OrderGroup};

/// An order that expands to more groups than this is refused: detection would not end within a build's time.
const MOST_GROUPS: usize = 1000;

/// One place in a flat group.
#[derive(Debug, Clone)]
pub(crate) struct Candidate<'a> {
    pub(crate) buildpack: &'a Buildpack,
    pub(crate) optional: bool,
}

/// What an order can name.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) buildpacks: Buildpacks,
    pub(crate) extensions: Buildpacks,
}

/// Expands depth first, from left to right (Buildpack spec, "Order Resolution"): a composite is replaced by each of its groups in
/// turn, an optional one also by nothing, last; an id that is in the group already is skipped. The groups of extensions are such an
/// optional composite before every group, and all their members are optional.
pub(crate) fn expand<'a>(order: &Order, installed: &'a Installed) -> Result<Vec<Vec<Candidate<'a>>>, Failure> {
    let mut expansion = Expansion { installed, groups: Vec::new() };
    for group in &order.order {
        let group = elements(group, &None);
        for extensions in &order.order_extensions {
            let extensions = elements(extensions, &None).into_iter().map(Element::extension);
            expansion.visit(&extensions.chain(group.iter().cloned()).collect::<Vec<_>>(), Vec::new())?;
        }
        expansion.visit(&group, Vec::new())?;
    }
    Ok(expansion.groups)
}

struct Expansion<'a> {
    installed: &'a Installed,
    groups: Vec<Vec<Candidate<'a>>>,
}

/// An entry still to be expanded, and the composites it came out of.
#[derive(Clone)]
struct Element {
    kind: Kind,
    entry: OrderEntry,
    within: Within,
}

impl Element {
    fn extension(self) -> Self {
        Self { kind: Kind::Extension, entry: OrderEntry { optional: true, ..self.entry }, ..self }
    }
}

type Within = Option<Rc<Composite>>;

struct Composite {
    id: String,
    within: Within,
}

fn elements(group: &OrderGroup, within: &Within) -> Vec<Element> {
    let element = |entry: &OrderEntry| Element { kind: Kind::Buildpack, entry: entry.clone(), within: within.clone() };
    group.group.iter().map(element).collect()
}

impl<'a> Expansion<'a> {
    fn visit(&mut self, todo: &[Element], mut done: Vec<Candidate<'a>>) -> Result<(), Failure> {
        let Some((first, rest)) = todo.split_first() else {
            self.groups.push(done);
            return if self.groups.len() > MOST_GROUPS { Err(too_many()) } else { Ok(()) };
        };
        let buildpack = self.find(first)?;
        if buildpack.order().is_empty() {
            if !done.iter().any(|candidate| candidate.buildpack.plan_id() == buildpack.plan_id()) {
                done.push(Candidate { buildpack, optional: first.entry.optional });
            }
            return self.visit(rest, done);
        }
        let within = enter(buildpack.id(), &first.within)?;
        for group in buildpack.order() {
            let for_us =
                elements(group, &within).into_iter().filter(|element| buildpack.is_for_us(element.entry.exec_env));
            let todo: Vec<Element> = for_us.chain(rest.iter().cloned()).collect();
            self.visit(&todo, done.clone())?;
        }
        if first.entry.optional { self.visit(rest, done) } else { Ok(()) }
    }

    fn find(&self, Element { kind, entry, .. }: &Element) -> Result<&'a Buildpack, Failure> {
        let installed = match kind {
            Kind::Buildpack => &self.installed.buildpacks,
            Kind::Extension => &self.installed.extensions,
        };
        installed.find(&entry.id, entry.version.as_deref()).ok_or_else(|| Failure::UnknownBuildpack {
            buildpack: entry.version.as_ref().map_or(entry.id.clone(), |version| format!("{}@{version}", entry.id)),
            installed: installed.ids(),
        })
    }
}

/// The composites around the groups of `id`; refused when `id` is one of them already.
fn enter(id: &str, within: &Within) -> Result<Within, Failure> {
    let mut outer = within.as_ref();
    while let Some(composite) = outer {
        if composite.id == id {
            return Err(Failure::Unusable {
                what: format!("buildpack {id}"),
                problem: "its order contains itself".into(),
            });
        }
        outer = composite.within.as_ref();
    }
    Ok(Some(Rc::new(Composite { id: id.to_owned(), within: within.clone() })))
}

fn too_many() -> Failure {
    Failure::Unusable {
        what: "the buildpack order".into(),
        problem: format!("it expands to more than {MOST_GROUPS} groups; make it shorter"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(folder: &std::path::Path) -> Installed {
        let buildpacks = Buildpacks::load(Kind::Buildpack, folder).unwrap();
        Installed { buildpacks, extensions: Buildpacks::default() }
    }

    fn installed(buildpacks: &[(&str, &str)]) -> Installed {
        let folder = tempfile::tempdir().unwrap();
        for (id, extra) in buildpacks {
            let dir = folder.path().join(id).join("1.0.0");
            fs::create_dir_all(&dir).unwrap();
            let text = format!("api = '0.10'\n[buildpack]\nid = '{id}'\nversion = '1.0.0'\n{extra}");
            fs::write(dir.join("buildpack.toml"), text).unwrap();
        }
        load(folder.path())
    }

    fn expanded(order: &str, installed: &Installed) -> Vec<String> {
        let order: Order = toml::from_str(order).unwrap();
        let show = |candidate: &Candidate| {
            format!("{}{}", candidate.buildpack.id(), if candidate.optional { "?" } else { "" })
        };
        expand(&order, installed)
            .unwrap()
            .iter()
            .map(|group| group.iter().map(show).collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[test]
    fn composites_are_replaced_by_each_of_their_groups() {
        let buildpacks = installed(&[
            ("a", ""),
            ("b", ""),
            ("c", ""),
            ("ab", "[[order]]\ngroup = [{id = 'a'}, {id = 'b', optional = true}]\n[[order]]\ngroup = [{id = 'b'}]"),
        ]);
        let order = "[[order]]\ngroup = [{id = 'ab'}, {id = 'c'}]\n[[order]]\ngroup = [{id = 'c', optional = true}]";
        assert_eq!(expanded(order, &buildpacks), ["a b? c", "b c", "c?"]);
        let optional = "[[order]]\ngroup = [{id = 'ab', optional = true}, {id = 'b'}]";
        assert_eq!(expanded(optional, &buildpacks), ["a b?", "b", "b"]);
    }

    #[test]
    fn members_for_other_execution_environments_are_left_out_since_api_0_12() {
        let folder = tempfile::tempdir().unwrap();
        let group =
            "[[order]]\ngroup = [{id = 'a', exec-env = ['test']}, {id = 'b', exec-env = ['test', 'production']}]";
        for (id, api, extra) in [("a", "0.12", ""), ("b", "0.12", ""), ("new", "0.12", group), ("old", "0.11", group)] {
            let dir = folder.path().join(id).join("1.0.0");
            fs::create_dir_all(&dir).unwrap();
            let text = format!("api = '{api}'\n[buildpack]\nid = '{id}'\nversion = '1.0.0'\n{extra}");
            fs::write(dir.join("buildpack.toml"), text).unwrap();
        }
        let buildpacks = load(folder.path());
        let order = "[[order]]\ngroup = [{id = 'new'}]\n[[order]]\ngroup = [{id = 'old'}]";
        assert_eq!(expanded(order, &buildpacks), ["b", "a b"]);
    }

    #[test]
    fn extensions_are_optional_before_every_group_and_every_group_is_tried_without_them() {
        let folder = tempfile::tempdir().unwrap();
        for id in ["x", "b"] {
            let dir = folder.path().join(id).join("1.0.0");
            fs::create_dir_all(&dir).unwrap();
            let text = format!("api = '0.10'\n[extension]\nid = '{id}'\nversion = '1.0.0'");
            fs::write(dir.join("extension.toml"), text).unwrap();
        }
        let extensions = Buildpacks::load(Kind::Extension, folder.path()).unwrap();
        let installed = Installed { extensions, ..installed(&[("a", ""), ("b", "")]) };
        let order = "[[order-extensions]]\ngroup = [{id = 'x'}, {id = 'b'}]\n[[order-extensions]]\ngroup = [{id = 'b'}]\n\
                     [[order]]\ngroup = [{id = 'a'}, {id = 'b'}]\n[[order]]\ngroup = [{id = 'a'}]";
        let groups = ["x? b? a b", "b? a b", "a b", "x? b? a", "b? a", "a"];
        assert_eq!(expanded(order, &installed), groups);
    }

    #[test]
    fn an_order_that_contains_itself_is_refused() {
        let buildpacks = installed(&[("loop", "[[order]]\ngroup = [{id = 'loop'}]")]);
        let order: Order = toml::from_str("[[order]]\ngroup = [{id = 'loop'}]").unwrap();
        let error = expand(&order, &buildpacks).unwrap_err();
        assert!(error.to_string().contains("contains itself"), "{error}");
    }

    #[test]
    fn a_buildpack_that_is_not_installed_is_named_with_those_that_are() {
        let buildpacks = installed(&[("a", "")]);
        let order: Order = toml::from_str("[[order]]\ngroup = [{id = 'z', version = '1.2.3'}]").unwrap();
        let error = expand(&order, &buildpacks).unwrap_err().to_string();
        assert!(error.contains("z@1.2.3") && error.contains("  a"), "{error}");
    }
}
