//! What buildah prints, as other builds say it: of each step whether an earlier build's result was of use.

use super::text;

/// Reads buildah's output, line by line.
pub(super) struct Steps {
    /// The reason why the step that is begun would be done anew. It is not known yet whether it is.
    open: Option<&'static str>,
    /// Whether nothing can be of use yet.
    is_first: bool,
    /// Whether nothing of the stage came yet but what it starts from.
    begins: bool,
    /// Whether a step of this stage was done anew.
    is_anew: bool,
    /// Arguments of the platform's own: nobody else's business.
    own: Vec<String>,
    /// The instruction that declares them.
    own_step: String,
}

/// What a line says that begins a step: `STEP 1/3: RUN x`, `[1/2] STEP 1/3: RUN x` where there are several stages.
struct Step<'a> {
    stage: &'a str,
    number: usize,
    count: usize,
    text: &'a str,
}

impl Steps {
    /// `is_first` if no build before kept anything; `own` are arguments that [`text::declare`] added.
    pub(super) fn new(is_first: bool, own: &[&str]) -> Self {
        let own_step = text::declaration(own);
        let own = own.iter().map(|&name| name.to_owned()).collect();
        Self { open: None, is_first, begins: false, is_anew: false, own, own_step }
    }

    /// What is shown in place of a line.
    pub(super) fn translate(&mut self, line: &str) -> Vec<String> {
        if line.starts_with("--> Using cache ") && (self.open.is_some() || self.begins) {
            return self.open.take().map(|_| "       cache hit".to_owned()).into_iter().collect();
        }
        let mut shown: Vec<_> = self.settle().into_iter().collect();
        match Step::parse(line) {
            Some(step) if step.text == self.own_step => {}
            Some(step) => {
                let instruction = step.text.split(' ').next().unwrap_or_default();
                let begun = std::mem::replace(&mut self.begins, instruction == "FROM");
                match instruction {
                    "FROM" => self.is_anew = false,
                    _ => self.open = Some(reason(instruction, begun)),
                }
                shown.push(step.show(usize::from(!self.own.is_empty())));
            }
            None if is_noise(line) => {}
            None => {
                shown.extend(self.without_own(line));
                shown.extend(UNWELCOME.iter().any(|words| line.contains(words)).then(|| ADVICE.to_owned()));
            }
        }
        shown
    }

    /// Says of the step that is begun that it is done anew, and why.
    fn settle(&mut self) -> Option<String> {
        let reason = self.open.take()?;
        let was_anew = std::mem::replace(&mut self.is_anew, true);
        let reason = if was_anew { "an earlier step was done anew" } else { reason };
        (!self.is_first).then(|| format!("       cache miss because {reason}"))
    }

    /// A line; of a warning that arguments are of no use only what is about the app's.
    fn without_own(&self, line: &str) -> Option<String> {
        let names = line.strip_prefix(UNUSED).and_then(|rest| rest.strip_suffix(']'));
        let Some(names) = names else { return Some(line.to_owned()) };
        let is_theirs = |name: &&str| !self.own.iter().any(|own| own == name);
        let names: Vec<&str> = names.split(' ').filter(is_theirs).collect();
        (!names.is_empty()).then(|| format!("{UNUSED}{}]", names.join(" ")))
    }
}

/// What registries say to whoever may not have an image, in buildah's words.
const UNWELCOME: [&str; 2] = ["unauthorized: ", "requested access to the resource is denied"];
const ADVICE: &str =
    "       If the image is private: `platform credentials:set HOST` tells the platform who it is at its registry";

/// Begins a list of names that ends with a bracket.
const UNUSED: &str = "[Warning] one or more build args were not consumed: [";

impl<'a> Step<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (stage, rest) = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            Some((stage, rest)) => (&line[..stage.len() + 3], rest),
            None => ("", line),
        };
        let (number, text) = rest.strip_prefix("STEP ")?.split_once(": ")?;
        let (number, count) = number.split_once('/')?;
        Some(Self { stage, number: number.parse().ok()?, count: count.parse().ok()?, text })
    }

    /// As a line again, without `hidden` steps after the first one of its stage.
    fn show(&self, hidden: usize) -> String {
        let number = if self.number == 1 { 1 } else { self.number.saturating_sub(hidden) };
        let text = self.text.split(' ').map(short).collect::<Vec<_>>().join(" ");
        format!("{}STEP {number}/{}: {text}", self.stage, self.count.saturating_sub(hidden))
    }
}

/// Why a step is done anew if those before it are not.
fn reason(instruction: &str, begun: bool) -> &'static str {
    match instruction {
        "COPY" | "ADD" if begun => "the step, a file that it copies, or the image that it starts from changed",
        "COPY" | "ADD" => "the step, or a file that it copies, changed",
        _ if begun => "the step, or the image that it starts from, changed",
        "RUN" => "the step, or a build argument, changed",
        _ => "the step changed",
    }
}

/// Names of what buildah keeps, which nobody can use.
fn is_noise(line: &str) -> bool {
    let name = line.strip_prefix("--> ").unwrap_or(line);
    let is_id = |text: &str| [12, 64].contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let commit = line.split_once("COMMIT localhost/").is_some_and(|(_, name)| !name.contains(' '));
    is_id(name) || line.starts_with("Successfully tagged localhost/") || commit
}

fn short(word: &str) -> &str {
    let is_id = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { &word[..12] } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "edd107bcee7e8d6a332c6c8ae17613896fc11081769d42dbd17e471747f4fa4c";

    fn shown(is_first: bool, printed: &str) -> String {
        let mut steps = Steps::new(is_first, &["A", "B"]);
        printed.lines().flat_map(|line| steps.translate(line)).map(|line| line + "\n").collect()
    }

    #[test]
    fn each_step_says_whether_it_is_done_anew_and_why() {
        let printed = format!(
            "[1/2] STEP 1/4: FROM scratch AS base\n[1/2] STEP 2/4: ARG A B\n--> Using cache {ID}\n--> 3cc59cb4b078\n\
             [1/2] STEP 3/4: COPY a b\n--> Using cache {ID}\n--> edd107bcee7e\n[1/2] STEP 4/4: COPY c d\n--> 24c527427a3b\n\
             [2/2] STEP 1/5: FROM {ID}\n[2/2] STEP 2/5: ARG A B\n--> 3cc59cb4b078\n[2/2] STEP 3/5: ARG WHAT=x\n\
             --> Using cache {ID}\n--> edd107bcee7e\n[2/2] STEP 4/5: RUN make\nmade\n--> 24c527427a3b\n\
             [2/2] STEP 5/5: CMD [\"x\"]\n[2/2] COMMIT localhost/image\n--> 3cc59cb4b078\n\
             [Warning] one or more build args were not consumed: [A TYPO]\n[Warning] one or more build args were not consumed: [B]\n\
             Successfully tagged localhost/image:latest\n{ID}\n"
        );
        insta::assert_snapshot!(shown(false, &printed), @r#"
        [1/2] STEP 1/3: FROM scratch AS base
        [1/2] STEP 2/3: COPY a b
               cache hit
        [1/2] STEP 3/3: COPY c d
               cache miss because the step, or a file that it copies, changed
        [2/2] STEP 1/4: FROM edd107bcee7e
        [2/2] STEP 2/4: ARG WHAT=x
               cache hit
        [2/2] STEP 3/4: RUN make
               cache miss because the step, or a build argument, changed
        made
        [2/2] STEP 4/4: CMD ["x"]
               cache miss because an earlier step was done anew
        [Warning] one or more build args were not consumed: [TYPO]
        "#);
    }

    #[test]
    fn a_private_image_is_told_from_a_mistake() {
        let printed = "STEP 1/2: FROM r.example.com/x\nTrying to pull r.example.com/x:latest...\n\
                       Error: creating build container: initializing source docker://r.example.com/x:latest: reading manifest: unauthorized: authentication required\n";
        assert!(shown(true, printed).ends_with("at its registry\n"));
    }

    #[test]
    fn a_first_build_says_nothing_of_a_cache_and_what_a_step_prints_stays() {
        let printed = "STEP 1/3: FROM x\nTrying to pull x\nSTEP 2/3: ARG A B\nSTEP 3/3: RUN y\nSTEP none\n--> Using cache, she said\n";
        insta::assert_snapshot!(shown(true, printed), @r"
        STEP 1/2: FROM x
        Trying to pull x
        STEP 2/2: RUN y
        STEP none
        --> Using cache, she said
        ");
    }
}
