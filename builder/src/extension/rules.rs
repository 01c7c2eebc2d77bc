//! What Dockerfiles of image extensions may say (Image Extension spec, "Dockerfile Requirements"). Pure.

use super::Target;
use crate::dockerfile::text::{Instruction, instructions};
use crate::metadata::REBASABLE_LABEL;

/// The argument with the image that a Dockerfile begins with.
const BASE: &str = "base_image";
/// The argument that is another one in every build.
const ANEW: &str = "build_id";

/// Instructions that are good for an extension.
const RECOMMENDED: [&str; 10] = ["FROM", "ADD", "ARG", "COPY", "ENV", "LABEL", "RUN", "SHELL", "USER", "WORKDIR"];

/// A Dockerfile that obeys the rules.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they have nothing to do with each other")]
pub(crate) struct Checked {
    /// The image that takes the place of the given one.
    pub(crate) instead: Option<String>,
    /// Whether it does anything but that.
    pub(crate) extends: bool,
    /// Whether it copies from its folder.
    pub(crate) copies: bool,
    /// Whether it asks to be applied anew by every build.
    pub(crate) is_anew: bool,
    /// Whether it says if its image may be put on another base.
    pub(crate) says_rebasable: bool,
    /// What it would better not say.
    pub(crate) warnings: Vec<String>,
}

/// Reads a Dockerfile, or says what is wrong with it.
pub(crate) fn check(target: Target, dockerfile: &str) -> Result<Checked, String> {
    let file = target.file();
    let all = instructions(dockerfile);
    let is_from = |instruction: &&Instruction| instruction.name == "FROM";
    let begin = all.iter().take_while(|instruction| !is_from(instruction)).count();
    let (before, rest) = all.split_at(begin);
    let Some((from, rest)) = rest.split_first() else { return Err(format!("{file} has no FROM")) };
    if let Some(second) = rest.iter().find(is_from) {
        return Err(format!("{file} has a second FROM, on line {}: it can have only one stage", second.line));
    }
    if let Some(odd) = before.iter().find(|instruction| instruction.name != "ARG") {
        return Err(format!("{file} has {} before FROM, on line {}: only ARG can be there", odd.name, odd.line));
    }
    let args: Vec<&str> = before.iter().flat_map(|arg| arg.text.split_whitespace()).collect();
    let has_base = args.iter().any(|arg| arg.split('=').next() == Some(BASE));
    let image = from.text.split_whitespace().find(|word| !word.starts_with("--")).unwrap_or_default();
    let is_given = [format!("${{{BASE}}}"), format!("${BASE}")].iter().any(|name| name == image);
    if target == Target::Build && !(has_base && args.len() == 1 && is_given) {
        return Err(format!("{file} does not begin with `ARG {BASE}` and `FROM ${{{BASE}}}`"));
    }
    if is_given && !has_base {
        return Err(format!("{file} does not say `ARG {BASE}` before FROM"));
    }
    let warn = |instruction: &Instruction| {
        format!("{file}, line {}: {} is not for image extensions", instruction.line, instruction.name)
    };
    let copies = |it: &Instruction| ["ADD", "COPY"].contains(&it.name.as_str()) || it.text.contains("--mount");
    Ok(Checked {
        instead: (!is_given).then(|| image.to_owned()),
        extends: !rest.is_empty(),
        copies: rest.iter().any(copies),
        is_anew: all.iter().any(|instruction| instruction.text.contains(ANEW)),
        says_rebasable: rest.iter().any(|it| it.name == "LABEL" && it.text.contains(REBASABLE_LABEL)),
        warnings: rest.iter().filter(|it| !RECOMMENDED.contains(&it.name.as_str())).map(warn).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong, or what it does in few words.
    fn said(target: Target, dockerfile: &str) -> String {
        let checked = match check(target, dockerfile) {
            Ok(checked) => checked,
            Err(problem) => return problem,
        };
        let marks = [
            (checked.extends, "extends"),
            (checked.copies, "copies"),
            (checked.is_anew, "anew"),
            (checked.says_rebasable, "rebasable"),
        ];
        let marks = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| (*mark).to_owned());
        let instead = checked.instead.map(|image| format!("on {image}"));
        instead.into_iter().chain(marks).chain(checked.warnings).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn the_rules_of_the_specification() {
        use Target::{Build, Run};
        const GIVEN: &str = "ARG base_image\nFROM ${base_image}\n";
        let rows = [
            (Build, GIVEN, "", ""),
            (Build, GIVEN, "RUN true", "extends"),
            (Build, "# why\n\narg base_image\nfrom $base_image\n", "", ""),
            (Build, "ARG base_image=debian\nFROM --platform=linux/amd64 ${base_image} AS x\n", "", ""),
            (Build, "FROM ${base_image}\n", "", "does not begin with `ARG base_image`"),
            (Build, "ARG base_image\nARG other\nFROM ${base_image}\n", "", "does not begin with `ARG base_image`"),
            (Build, "ARG base_image\nFROM debian\n", "", "does not begin with `ARG base_image`"),
            (Build, "", "", "build.Dockerfile has no FROM"),
            (Build, GIVEN, "FROM scratch", "a second FROM, on line 3"),
            (Run, GIVEN, "", ""),
            (Run, GIVEN, "FROM scratch\nCOPY x /", "a second FROM, on line 3"),
            (Run, "RUN true", "", "run.Dockerfile has no FROM"),
            (Run, "RUN true\n", GIVEN, "has RUN before FROM, on line 1"),
            (Run, "FROM ${base_image}\n", "", "run.Dockerfile does not say `ARG base_image` before FROM"),
            (Run, "FROM registry.example.com/run:1\n", "", "on registry.example.com/run:1"),
            (Run, "ARG tag=1\nFROM run:${tag}\n", "LABEL a=b", "on run:${tag}, extends"),
            (Run, GIVEN, "ADD a /", "extends, copies"),
            (Run, GIVEN, "COPY a /", "extends, copies"),
            (Run, GIVEN, "RUN --mount=type=bind,target=/x ls /x", "extends, copies"),
            (Run, GIVEN, "RUN <<EOF\nFROM x\nCOPY a /\nEOF\n", "extends"),
            (Run, GIVEN, "RUN echo \\\n  FROM x", "extends"),
            (Run, GIVEN, "ARG build_id=0\nRUN echo ${build_id}", "extends, anew"),
            (Run, GIVEN, "ENV a=b\nSHELL [\"/bin/sh\"]\nUSER 0\nWORKDIR /", "extends"),
            (Run, GIVEN, "LABEL a=b io.buildpacks.rebasable=true", "extends, rebasable"),
            (Run, GIVEN, "CMD x", "extends, run.Dockerfile, line 3: CMD is not for image extensions"),
            (Build, GIVEN, "\nExpose 1", "extends, build.Dockerfile, line 4: EXPOSE is not for image extensions"),
        ];
        for (target, begin, rest, expected) in rows {
            let said = said(target, &format!("{begin}{rest}"));
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{begin}{rest}: {said}");
        }
    }
}
