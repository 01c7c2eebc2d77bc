//! The detect phase: which buildpacks build this app. Runs inside the build container.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};

use crate::buildpack::{Buildpack, Fit, Kind};
use crate::debian;
use crate::errors::{Failure, Reason};
use crate::formats::{Api, DetectPlan, EXEC_ENV, Order, Require, escaped};
use crate::lifecycle::{Paths, read_if_there};
use crate::order::{self, Candidate, Installed};
use crate::plan::{self, Member, Resolution};

/// Longest output of one `bin/detect` that is kept, in bytes.
const OUTPUT_LIMIT: u64 = 64 * 1024;

/// From so many on nobody of a later group is asked together with them.
const AT_ONCE: usize = 6;

/// What one `bin/detect` said.
#[derive(Debug, Clone)]
struct Finding {
    verdict: Verdict,
    /// The line to show a person.
    said: String,
}

#[derive(Debug, Clone)]
enum Verdict {
    Pass(DetectPlan),
    Fail,
    Error,
}

/// A group that works, each kind in order.
pub(crate) struct Found<'a> {
    pub(crate) extensions: Vec<&'a Buildpack>,
    pub(crate) buildpacks: Vec<&'a Buildpack>,
    pub(crate) resolution: Resolution,
}

/// The group that builds the app: the first of the order whose required members all pass and whose plan resolves.
pub(crate) fn detect<'a>(paths: &Paths, installed: &'a Installed) -> Result<Found<'a>, Failure> {
    let text = fs::read_to_string(&paths.order).map_err(|error| Failure::unusable(&paths.order, &error))?;
    let order: Order = toml::from_str(&text).map_err(|error| Failure::unusable(&paths.order, &error.message()))?;
    let mut detection = Detection { paths, findings: BTreeMap::new() };
    let mut mismatches = Vec::new();
    let groups = order::expand(&order, installed)?;
    for (index, group) in groups.iter().enumerate() {
        detection.run_missing(&groups[index..])?;
        match detection.resolve(group) {
            Ok(resolution) => {
                let stays = |buildpack: &&'a Buildpack| resolution.group.contains(&buildpack.plan_id());
                let members = group.iter().map(|candidate| candidate.buildpack).filter(stays);
                let (extensions, buildpacks) = members.partition(|member| member.kind == Kind::Extension);
                return Ok(Found { extensions, buildpacks, resolution });
            }
            Err(reason) => mismatches.extend(reason),
        }
    }
    Err(detection.nothing(&mismatches))
}

type Key = (Kind, String);

fn key(buildpack: &Buildpack) -> Key {
    (buildpack.kind, buildpack.name())
}

struct Detection<'a> {
    paths: &'a Paths,
    /// By kind and `id@version`: each is asked once.
    findings: BTreeMap<Key, Finding>,
}

impl Detection<'_> {
    /// Asks those members of the first group that were not asked yet, all at once, and with them a few of the next groups:
    /// most groups differ in one buildpack, and one at a time would leave all cores but one idle.
    fn run_missing(&mut self, groups: &[Vec<Candidate>]) -> Result<(), Failure> {
        let mut missing: Vec<&Buildpack> = Vec::new();
        for group in groups {
            for buildpack in group.iter().map(|candidate| candidate.buildpack) {
                let key = key(buildpack);
                if !self.findings.contains_key(&key) && !missing.iter().any(|other| self::key(other) == key) {
                    missing.push(buildpack);
                }
            }
            if missing.is_empty() || missing.len() >= AT_ONCE {
                break;
            }
        }
        let paths = self.paths;
        let findings = std::thread::scope(|scope| {
            let asked: Vec<_> = missing.iter().map(|buildpack| scope.spawn(|| ask(paths, buildpack))).collect();
            asked
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Ok(error("it crashed the lifecycle".into()))))
                .collect::<Vec<_>>()
        });
        for (buildpack, finding) in missing.iter().zip(findings) {
            self.findings.insert(key(buildpack), finding?);
        }
        Ok(())
    }

    /// The error is the plan's problem, or nothing if a required member did not pass.
    fn resolve(&self, group: &[Candidate]) -> Result<Resolution, Option<String>> {
        let mut members = vec![debian::member()];
        for candidate in group {
            match self.findings.get(&key(candidate.buildpack)).map(|finding| &finding.verdict) {
                Some(Verdict::Pass(plan)) => members.push(Member {
                    id: candidate.buildpack.plan_id(),
                    optional: candidate.optional,
                    plan: plan.clone(),
                }),
                _ if candidate.optional => {}
                _ => return Err(None),
            }
        }
        let mut buildpacks = group.iter().map(|it| it.buildpack).filter(|it| it.kind == Kind::Buildpack);
        let resolution = if members.len() == 1 { Err(None) } else { plan::resolve(&members).map_err(Some) }?;
        // Extensions alone build nothing.
        let builds = buildpacks.any(|buildpack| resolution.group.contains(&buildpack.plan_id()));
        if builds { Ok(resolution) } else { Err(None) }
    }

    fn nothing(&self, mismatches: &[String]) -> Failure {
        let reason = |((_, name), finding): (&Key, &Finding)| {
            let id = name.split('@').next().unwrap_or(name);
            let said = match &finding.verdict {
                Verdict::Pass(_) => {
                    let about = mismatches.iter().find(|mismatch| mismatch.starts_with(&format!("{id} ")));
                    about.map_or("fits, but not without another buildpack".to_owned(), |mismatch| {
                        format!("fits, but{}", &mismatch[id.len()..])
                    })
                }
                _ => finding.said.clone(),
            };
            Reason { buildpack: id.to_owned(), said }
        };
        let errored = self.findings.values().any(|finding| matches!(finding.verdict, Verdict::Error));
        let mut files: Vec<String> = fs::read_dir(&self.paths.app)
            .map(|entries| {
                let name = |entry: fs::DirEntry| {
                    let slash = if entry.path().is_dir() { "/" } else { "" };
                    format!("{}{slash}", entry.file_name().to_string_lossy())
                };
                entries.flatten().map(name).collect()
            })
            .unwrap_or_default();
        files.sort();
        Failure::NothingDetected { reasons: self.findings.iter().map(reason).collect(), files, errored }
    }
}

fn error(said: String) -> Finding {
    Finding { verdict: Verdict::Error, said }
}

/// Runs one `bin/detect`. Only the lifecycle's own trouble is an `Err`; a buildpack's is a finding.
fn ask(paths: &Paths, buildpack: &Buildpack) -> Result<Finding, Failure> {
    match buildpack.fit(&paths.target) {
        Fit::Yes => {}
        Fit::OtherDistro(_) if paths.other_distros => {}
        Fit::OtherDistro(theirs) => {
            return Ok(error(format!(
                "is made for {theirs}, and this stack is {}; the platform's operator may allow it by the setting `other_distros`",
                paths.distro()
            )));
        }
        Fit::No => return Ok(error("is made for another kind of machine".to_owned())),
    }
    if !buildpack.is_for_us(buildpack.toml.buildpack.exec_env) {
        return Ok(Finding { verdict: Verdict::Fail, said: format!("is not made for {EXEC_ENV}") });
    }
    if buildpack.kind == Kind::Extension && !buildpack.dir.join("bin/detect").exists() {
        let plan = read_if_there(&buildpack.dir.join("detect/plan.toml"));
        return Ok(passed(buildpack, plan.map(Option::unwrap_or_default), "brings a plan".to_owned()));
    }
    let trouble = |error: std::io::Error| Failure::io("ask a buildpack", &error);
    let scratch = paths.scratch(&format!("detect-{}", escaped(&buildpack.plan_id()))).map_err(trouble)?;
    let plan = scratch.join("plan.toml");
    File::create(&plan).map_err(trouble)?;
    let mut env = paths.buildpack_env(buildpack, &paths.base_env()).map_err(trouble)?;
    if buildpack.api() >= Api::new(0, 8) {
        env.set("CNB_BUILD_PLAN_PATH", &plan);
    }
    let (mut reader, writer) = std::io::pipe().map_err(trouble)?;
    let mut command = Command::new(buildpack.dir.join("bin/detect"));
    command.arg(&paths.platform).arg(&plan).current_dir(&paths.app).env_clear().envs(env.iter());
    command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(trouble)?).stderr(writer);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(reason) => return Ok(error(format!("bin/detect could not be started: {reason}"))),
    };
    drop(command);
    let mut output = Vec::new();
    reader.by_ref().take(OUTPUT_LIMIT).read_to_end(&mut output).map_err(trouble)?;
    // What goes beyond the limit is read and dropped, so that the child does not die of a closed pipe.
    std::io::copy(&mut reader, &mut std::io::sink()).map_err(trouble)?;
    let status = child.wait().map_err(trouble)?;
    let said = last_line(&String::from_utf8_lossy(&output));
    Ok(match status.code() {
        Some(0) => passed(buildpack, Ok(fs::read_to_string(&plan).unwrap_or_default()), said),
        Some(100) => Finding { verdict: Verdict::Fail, said },
        _ => error(format!("bin/detect failed ({status}): {said}")),
    })
}

/// What is found of one that passed and whose plan is this.
fn passed(buildpack: &Buildpack, plan: std::io::Result<String>, said: String) -> Finding {
    let plan = plan.map_err(|problem| problem.to_string()).and_then(|text| read_plan(&text));
    let invalid = |problem: String| error(format!("wrote a build plan that is not valid: {problem}"));
    match plan {
        Ok(plan) if buildpack.kind == Kind::Extension && requires(&plan).next().is_some() => {
            invalid("an image extension can require nothing".to_owned())
        }
        Ok(plan) => Finding { verdict: Verdict::Pass(plan), said },
        Err(problem) => invalid(problem),
    }
}

fn requires(plan: &DetectPlan) -> impl Iterator<Item = &Require> {
    std::iter::once(&plan.first).chain(&plan.or).flat_map(|sections| &sections.requires)
}

fn read_plan(text: &str) -> Result<DetectPlan, String> {
    let plan: DetectPlan = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let odd = requires(&plan).find(|require| require.version.is_some());
    match odd.map(|require| format!("the version of `{}` belongs into its metadata", require.name)) {
        Some(problem) => Err(problem),
        None => Ok(plan),
    }
}

fn last_line(output: &str) -> String {
    output.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("did not say why").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_with_a_version_at_the_wrong_place_is_refused() {
        let error = read_plan("[[requires]]\nname = 'node'\nversion = '1'").unwrap_err();
        assert_eq!(error, "the version of `node` belongs into its metadata");
        let plan = read_plan("[[provides]]\nname = 'a'\n[[or]]\n[[or.provides]]\nname = 'b'").unwrap();
        assert_eq!(plan.or.len(), 1);
    }
}
