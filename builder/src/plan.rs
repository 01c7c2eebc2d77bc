//! Build plan resolution: who provides what to whom. Pure.

use std::collections::BTreeMap;

use crate::formats::{DetectPlan, PlanSections, Require};

/// A buildpack whose detect passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) optional: bool,
    pub(crate) plan: DetectPlan,
}

/// A group that works together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolution {
    /// Ids of the members that stay, in order.
    pub(crate) group: Vec<String>,
    /// What they give each other.
    pub(crate) entries: Vec<Entry>,
}

/// One name of the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Ids of the buildpacks that provide it.
    pub(crate) providers: Vec<String>,
    /// All requires of the name, in group order; every provider sees each of them.
    pub(crate) requires: Vec<Require>,
}

/// Resolves `members`, trying their alternatives from left to right, depth first; the error is the last trial's reason.
pub(crate) fn resolve(members: &[Member]) -> Result<Resolution, String> {
    trials(members, &mut Vec::new())
}

/// One choice among a member's alternatives.
#[derive(Clone, Copy)]
struct Choice<'a> {
    id: &'a str,
    optional: bool,
    sections: &'a PlanSections,
}

fn trials<'a>(members: &'a [Member], chosen: &mut Vec<Choice<'a>>) -> Result<Resolution, String> {
    let Some((member, rest)) = members.split_first() else { return trial(chosen.clone()) };
    let mut reason = String::new();
    for (index, sections) in std::iter::once(&member.plan.first).chain(&member.plan.or).enumerate() {
        // An optional member may be dropped only with its last alternative: the earlier ones are worth insisting on.
        let optional = member.optional && index == member.plan.or.len();
        chosen.push(Choice { id: &member.id, optional, sections });
        let result = trials(rest, chosen);
        chosen.pop();
        match result {
            Ok(resolution) => return Ok(resolution),
            Err(last) => reason = last,
        }
    }
    Err(reason)
}

/// Drops optional members that need or offer what nobody else does, until nothing changes.
fn trial(mut chosen: Vec<Choice>) -> Result<Resolution, String> {
    loop {
        let needs = Needs::of(&chosen);
        let Some((id, reason)) = needs.loose_end() else {
            if chosen.is_empty() {
                return Err("no buildpack of the group is left".to_owned());
            }
            return Ok(Resolution {
                group: chosen.iter().map(|choice| choice.id.to_owned()).collect(),
                entries: needs.into_entries(),
            });
        };
        let id = id.to_owned();
        if chosen.iter().any(|choice| choice.id == id && !choice.optional) {
            return Err(reason);
        }
        chosen.retain(|choice| choice.id != id);
    }
}

/// The names of one trial, in the order of their first mention.
#[derive(Default)]
struct Needs<'a> {
    names: Vec<&'a str>,
    by_name: BTreeMap<&'a str, Need<'a>>,
}

#[derive(Default)]
struct Need<'a> {
    entry: Entry,
    /// Provided, and not yet required by the same or a later member.
    unused: Vec<&'a str>,
    /// Required before anybody provided it.
    unmet: Vec<&'a str>,
}

impl<'a> Needs<'a> {
    fn of(chosen: &[Choice<'a>]) -> Self {
        let mut needs = Self::default();
        for choice in chosen {
            for provide in &choice.sections.provides {
                needs.need(&provide.name).unused.push(choice.id);
            }
            for require in &choice.sections.requires {
                let need = needs.need(&require.name);
                need.entry.providers.extend(need.unused.drain(..).map(str::to_owned));
                if need.entry.providers.is_empty() {
                    need.unmet.push(choice.id);
                } else {
                    need.entry.requires.push(require.clone());
                }
            }
        }
        needs
    }

    fn need(&mut self, name: &'a str) -> &mut Need<'a> {
        if !self.by_name.contains_key(name) {
            self.names.push(name);
        }
        self.by_name.entry(name).or_default()
    }

    /// The first member that requires what nobody provides, else the first that provides what nobody requires.
    fn loose_end(&self) -> Option<(&'a str, String)> {
        let first = |pick: fn(&Need<'a>) -> Option<&'a str>| {
            self.names.iter().find_map(|name| pick(self.by_name.get(name)?).map(|id| (id, *name)))
        };
        if let Some((id, name)) = first(|need| need.unmet.first().copied()) {
            return Some((id, format!("{id} requires {name}, which no buildpack before it provides")));
        }
        let (id, name) = first(|need| need.unused.first().copied())?;
        Some((id, format!("{id} provides {name}, which no buildpack requires")))
    }

    fn into_entries(mut self) -> Vec<Entry> {
        self.names.iter().filter_map(|name| self.by_name.remove(name)).map(|need| need.entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `a?: +x -y | +z` is an optional member `a` that provides x and requires y, or provides z.
    fn member(text: &str) -> Member {
        let (id, plan) = text.split_once(':').unwrap();
        let mut sections = plan.split('|').map(|section| {
            let mut sections = PlanSections::default();
            for word in section.split_whitespace() {
                match word.split_at(1) {
                    ("+", name) => sections.provides.push(crate::formats::Provide { name: name.into() }),
                    (_, name) => sections.requires.push(Require {
                        name: name.into(),
                        version: None,
                        metadata: toml::Table::new(),
                    }),
                }
            }
            sections
        });
        let plan = DetectPlan { first: sections.next().unwrap(), or: sections.collect() };
        Member { id: id.trim_end_matches('?').into(), optional: id.ends_with('?'), plan }
    }

    fn resolved(members: &[&str]) -> Result<String, String> {
        let members: Vec<Member> = members.iter().map(|text| member(text)).collect();
        resolve(&members).map(|resolution| resolution.group.join(" "))
    }

    #[test]
    fn the_rules_of_the_specification() {
        assert_eq!(resolved(&["a: +x", "b: -x"]).unwrap(), "a b");
        assert_eq!(resolved(&["a: +x -x"]).unwrap(), "a");
        assert_eq!(resolved(&["a:"]).unwrap(), "a");
        assert_eq!(resolved(&["a: +x"]).unwrap_err(), "a provides x, which no buildpack requires");
        assert_eq!(
            resolved(&["a: -x", "b: +x -x"]).unwrap_err(),
            "a requires x, which no buildpack before it provides"
        );
        assert_eq!(resolved(&["a?: +x", "b:"]).unwrap(), "b");
        assert_eq!(resolved(&["a?: +x"]).unwrap_err(), "no buildpack of the group is left");
    }

    #[test]
    fn dropping_a_member_may_loosen_another() {
        // b goes for want of y; then nobody needs a's x, and a goes too.
        assert_eq!(resolved(&["a?: +x", "b?: -x -y", "c:"]).unwrap(), "c");
    }

    #[test]
    fn alternatives_are_tried_left_to_right_and_only_the_last_may_be_dropped() {
        assert_eq!(resolved(&["a: +x | +y -y"]).unwrap(), "a");
        assert_eq!(resolved(&["a?: +x | +x -x", "b:"]).unwrap(), "a b");
        assert_eq!(resolved(&["a?: +x | +y", "b:"]).unwrap(), "b");
        assert_eq!(resolved(&["a: +x | +y", "b: -x | -y"]).unwrap(), "a b");
    }

    #[test]
    fn a_later_provider_joins_and_each_sees_all_requires() {
        let members: Vec<Member> = ["a: +x", "b: -x", "c: +x -x"].into_iter().map(member).collect();
        let entries = resolve(&members).unwrap().entries;
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].providers, ["a", "c"]);
        assert_eq!(entries[0].requires.len(), 2);
    }

    fn any_member() -> impl Strategy<Value = (bool, Vec<Vec<(bool, u8)>>)> {
        let section = prop::collection::vec((any::<bool>(), 0u8..3), 0..4);
        (any::<bool>(), prop::collection::vec(section, 1..3))
    }

    proptest! {
        #[test]
        fn a_resolved_group_has_no_loose_ends(members in prop::collection::vec(any_member(), 1..5)) {
            let members: Vec<Member> = members.iter().enumerate().map(|(index, (optional, options))| {
                let words = |option: &Vec<(bool, u8)>| option.iter()
                    .map(|(provides, name)| format!("{}n{name}", if *provides { '+' } else { '-' })).collect::<Vec<_>>().join(" ");
                let options = options.iter().map(words).collect::<Vec<_>>().join("|");
                member(&format!("b{index}{}: {options}", if *optional { "?" } else { "" }))
            }).collect();
            if let Ok(resolution) = resolve(&members) {
                prop_assert!(members.iter().filter(|m| !m.optional).all(|m| resolution.group.contains(&m.id)));
                for entry in &resolution.entries {
                    prop_assert!(!entry.providers.is_empty() && !entry.requires.is_empty());
                    prop_assert!(entry.providers.iter().all(|id| resolution.group.contains(id)));
                }
            }
        }
    }
}
