//! `cron`, as Dokku words it.

use crate::node::{Item, Reader};
use crate::{CronJob, Overlap};

pub(super) fn cron_job(item: Item, reader: &mut Reader<'_>) -> Option<CronJob> {
    const OVERLAPS: &[(&str, Overlap)] =
        &[("allow", Overlap::Allow), ("forbid", Overlap::Forbid), ("replace", Overlap::Replace)];
    let (path, spot) = (item.path.clone(), item.spot);
    let mut fields = reader.fields(item, &["command", "schedule", "concurrency_policy"])?;
    let overlap = fields.take("concurrency_policy").and_then(|item| reader.choice(item, OVERLAPS)).unwrap_or_default();
    let (command, schedule) = (fields.take("command"), fields.take("schedule"));
    for (name, is_missing) in [("command", command.is_none()), ("schedule", schedule.is_none())] {
        if is_missing {
            reader.error(spot, format!("{path}.{name} is missing"));
        }
    }
    let command = reader.command(command?)?;
    let schedule = schedule_of(schedule?, reader)?;
    Some(CronJob { command, schedule, overlap })
}

fn schedule_of(item: Item, reader: &mut Reader<'_>) -> Option<String> {
    let (path, spot) = (item.path.clone(), item.spot);
    let text = reader.text(item)?;
    // The parser would also take fields of seconds and years, which crontab(5) does not have.
    let is_shaped = text.starts_with('@') || text.split_whitespace().count() == 5;
    let wrong = match text.parse::<croner::Cron>() {
        Ok(_) if is_shaped => return Some(text),
        Ok(_) => "it must have five fields: minute, hour, day of month, month, day of week".to_owned(),
        Err(error) => error.to_string().trim_end_matches('.').to_owned(),
    };
    reader.error(spot, format!("{path} must be a time like \"0 3 * * *\" or @daily: {wrong}"));
    None
}
