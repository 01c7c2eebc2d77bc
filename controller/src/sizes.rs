//! The sizes that dynos can have: Heroku's, and those that an operator makes.

use engine::Limits;
use model::DynoSize;

use crate::store::Action;
use crate::{Actor, Controller, Error};

/// Size of a process type that nobody gave another.
pub const DEFAULT_SIZE: &str = "Standard-1X";
/// Longest name: it is a part of what the engine calls a workload.
const LONGEST_NAME: usize = 30;

/// All sizes, from small to large.
#[derive(Debug, Clone)]
pub struct Sizes(Vec<DynoSize>);

/// A size as an operator words it; what is missing stays, or is that of [`DEFAULT_SIZE`] for a new one.
#[derive(Debug, Clone, Default)]
pub struct SizeRequest {
    /// Only of a new one.
    pub name: Option<String>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Whether its memory is kept free for it alone.
    pub dedicated: Option<bool>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// 100 is usual.
    pub cpu_weight: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Bytes.
    pub disk_bytes: Option<u64>,
    /// On that disk.
    pub files: Option<u64>,
    /// By one process.
    pub open_files: Option<u64>,
}

impl Sizes {
    /// Those that every platform has. They share the cores; when those are short, each gets its part by weight.
    pub fn built_in() -> Self {
        let size =
            |(name, id): (&str, &str), memory_mib: u64, cpu: (u32, u32), pids, disk_gib: u64, open_files| DynoSize {
                id: id.to_owned(),
                name: name.to_owned(),
                memory_bytes: memory_mib << 20,
                dedicated: name.starts_with("Performance"),
                cpu_millis: cpu.0,
                cpu_weight: cpu.1,
                pids,
                disk_bytes: disk_gib << 30,
                files: files_of(disk_gib << 30),
                open_files,
            };
        let eco = ("Eco", "954e2a36-c163-48e8-a8dc-5202c79d297b");
        let basic = ("Basic", "18a397eb-58c7-40bc-bd93-857da3ba5376");
        let x1 = ("Standard-1X", "6b087435-2f10-4395-bcc0-76e82feb411f");
        let x2 = ("Standard-2X", "519aa6d3-4a03-4acd-9745-41c9a8053297");
        let medium = ("Performance-M", "43896360-c0ce-4eed-a1ae-34758c86f654");
        let large = ("Performance-L", "860f1d35-b936-40f1-bf01-7d0a3b509421");
        let large_ram = ("Performance-L-RAM", "0c4ab7d2-2b3d-4f0f-8a55-6a0b8a2f3c71");
        let xl = ("Performance-XL", "5b1d7c1e-93f6-4c0a-9d0e-7e2f4b8a6d12");
        let xl2 = ("Performance-2XL", "e7a3f5b4-4d28-4b96-8c31-1f9d0c7e5a83");
        Self(vec![
            size(eco, 512, (1000, 50), 256, 2, 16_384),
            size(basic, 512, (1000, 100), 256, 4, 16_384),
            size(x1, 512, (1000, 100), 256, 4, 16_384),
            size(x2, 1024, (2000, 200), 512, 8, 32_768),
            size(medium, 2560, (2000, 400), 16384, 16, 65_536),
            size(large, 14336, (8000, 800), 32768, 32, 65_536),
            size(large_ram, 30720, (4000, 800), 32768, 32, 65_536),
            size(xl, 63488, (8000, 1600), 32768, 64, 65_536),
            size(xl2, 129_024, (16000, 3200), 32768, 128, 65_536),
        ])
    }

    /// With those that an operator made.
    pub(crate) fn with(own: Vec<DynoSize>) -> Self {
        let Self(mut all) = Self::built_in();
        all.extend(own);
        all.sort_by_key(|size| size.memory_bytes);
        Self(all)
    }

    /// All of them.
    pub fn all(&self) -> &[DynoSize] {
        &self.0
    }

    /// The one of this name, in any case.
    pub fn find(&self, name: &str) -> Option<&DynoSize> {
        self.0.iter().find(|size| size.name.eq_ignore_ascii_case(name))
    }

    /// The one of this name, or what is had without one.
    pub(crate) fn find_or_default(&self, name: &str) -> Option<&DynoSize> {
        self.find(name).or_else(|| self.find(DEFAULT_SIZE))
    }

    /// The smallest one with more memory.
    pub(crate) fn larger(&self, size: &DynoSize) -> Option<&DynoSize> {
        self.0.iter().find(|other| other.memory_bytes > size.memory_bytes)
    }

    /// Says that there is none of this name.
    pub(crate) fn unknown(&self, name: &str) -> Error {
        let names: Vec<_> = self.0.iter().map(|size| size.name.as_str()).collect();
        Error::Invalid(format!("size {name:?} does not exist; available are {}", names.join(", ")))
    }
}

/// What a dyno of this size may have.
pub(crate) fn limits(size: &DynoSize) -> Limits {
    Limits {
        cpu_weight: size.cpu_weight,
        dedicated: size.dedicated,
        disk_bytes: Some(size.disk_bytes),
        files: Some(size.files),
        open_files: Some(size.open_files),
        ..Limits::new(size.memory_bytes, size.cpu_millis, size.pids)
    }
}

/// One for each 16 KiB.
fn files_of(disk_bytes: u64) -> u64 {
    (disk_bytes >> 14).max(100)
}

impl Controller {
    /// The sizes that there are.
    pub async fn sizes(&self) -> Result<Sizes, Error> {
        Ok(Sizes::with(self.store.own_sizes().await?))
    }

    /// Makes a size.
    pub async fn add_size(&self, actor: &Actor, request: &SizeRequest) -> Result<DynoSize, Error> {
        let sizes = self.sizes().await?;
        let name = request.name.as_deref().unwrap_or_default();
        check_name(name)?;
        if sizes.find(name).is_some() {
            return Err(Error::Invalid(format!("Size {name} exists already; `platform ps:sizes` shows it")));
        }
        let memory_bytes = request.memory_bytes.ok_or_else(|| Error::Invalid("memory_bytes is missing".to_owned()))?;
        let usual = sizes.find(DEFAULT_SIZE).ok_or(Error::NotFound("dyno size"))?;
        let disk_bytes = request.disk_bytes.unwrap_or(usual.disk_bytes);
        let cpu_millis = request.cpu_millis.unwrap_or(u64::from(usual.cpu_millis));
        let (id, name) = (self.new_uuid(), name.to_owned());
        let base = DynoSize { id, name, memory_bytes, disk_bytes, files: files_of(disk_bytes), ..usual.clone() };
        // By its part of the cores, as of the others.
        let weight = request.cpu_weight.unwrap_or_else(|| (cpu_millis / 10).clamp(1, 10_000));
        let size = changed(base, &SizeRequest { cpu_weight: Some(weight), ..request.clone() })?;
        self.store.set_size(&size, Action::Create, &self.stamp(actor)).await?;
        Ok(size)
    }

    /// Changes a size that an operator made. Dynos that run keep what they have.
    pub async fn update_size(&self, actor: &Actor, which: &str, request: &SizeRequest) -> Result<DynoSize, Error> {
        let before = self.own_size(which).await?;
        if request.name.as_ref().is_some_and(|name| *name != before.name) {
            return Err(Error::Invalid("name cannot be changed: make another size, and give that to apps".to_owned()));
        }
        let size = changed(before, request)?;
        self.store.set_size(&size, Action::Update, &self.stamp(actor)).await?;
        Ok(size)
    }

    /// Removes a size that an operator made and nobody has.
    pub async fn remove_size(&self, actor: &Actor, which: &str) -> Result<DynoSize, Error> {
        let size = self.own_size(which).await?;
        match self.store.delete_size(&size, &self.stamp(actor)).await? {
            None => Ok(size),
            Some((app, process_type)) => Err(Error::Conflict(format!(
                "Size {} is that of {process_type} of {app}. Give it another one first: \
                 `platform ps:type {process_type}=standard-1x -a {app}`",
                size.name
            ))),
        }
    }

    async fn own_size(&self, which: &str) -> Result<DynoSize, Error> {
        let is_meant = |size: &DynoSize| size.name.eq_ignore_ascii_case(which) || size.id == which;
        if let Some(size) = Sizes::built_in().all().iter().find(|size| is_meant(size)) {
            let name = &size.name;
            let text =
                format!("Size {name} is the same on every platform. Make one of your own: `platform ps:sizes:add`");
            return Err(Error::Invalid(text));
        }
        self.store.own_sizes().await?.into_iter().find(is_meant).ok_or(Error::NotFound("dyno size"))
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if name.len() <= LONGEST_NAME && name.split('-').all(part) {
        return Ok(());
    }
    let rule = "lowercase letters, digits and single hyphens";
    Err(Error::Invalid(format!("name of a size must be up to {LONGEST_NAME} {rule}")))
}

fn changed(before: DynoSize, request: &SizeRequest) -> Result<DynoSize, Error> {
    let within = |field: &str, asked: Option<u64>, before: u64, (least, most): (u64, u64)| {
        let value = asked.unwrap_or(before);
        let text = || Error::Invalid(format!("{field} must be {least} to {most}"));
        if (least..=most).contains(&value) { Ok(value) } else { Err(text()) }
    };
    let small = |field: &str, asked, before: u32, range| {
        within(field, asked, u64::from(before), range).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
    };
    Ok(DynoSize {
        memory_bytes: within("memory_bytes", request.memory_bytes, before.memory_bytes, (16 << 20, 1 << 44))?,
        dedicated: request.dedicated.unwrap_or(before.dedicated),
        cpu_millis: small("cpu_millis", request.cpu_millis, before.cpu_millis, (10, 1_000_000))?,
        cpu_weight: small("cpu_weight", request.cpu_weight, before.cpu_weight, (1, 10_000))?,
        pids: small("processes", request.processes, before.pids, (8, 1_000_000))?,
        disk_bytes: within("disk_bytes", request.disk_bytes, before.disk_bytes, (16 << 20, 1 << 43))?,
        files: within("files", request.files, before.files, (100, 1 << 31))?,
        open_files: within("open_files", request.open_files, before.open_files, (64, 1 << 20))?,
        ..before
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formation::ScaleRequest;
    use crate::testing::TestController;

    fn request(name: &str, memory_mib: u64) -> SizeRequest {
        SizeRequest { name: Some(name.to_owned()), memory_bytes: Some(memory_mib << 20), ..SizeRequest::default() }
    }

    #[tokio::test]
    async fn an_operators_sizes_are_sizes_like_others() {
        let world = TestController::new().await;
        let ada = world.somebody("ada@example.com").await;
        let controller = &world.controller;
        let tiny = controller.add_size(&ada, &request("tiny", 64)).await.expect("made");
        assert_eq!((tiny.cpu_weight, tiny.pids, tiny.dedicated), (100, 256, false), "the rest is as usual");
        let sizes = controller.sizes().await.expect("sizes");
        assert_eq!(sizes.all()[0], tiny, "from small to large");
        assert_eq!(sizes.larger(&tiny).map(|size| size.name.as_str()), Some("Eco"));
        let half = SizeRequest { cpu_millis: Some(500), disk_bytes: Some(1 << 30), ..SizeRequest::default() };
        let changed = controller.update_size(&ada, "TINY", &half).await.expect("changed");
        assert_eq!(changed, DynoSize { cpu_millis: 500, disk_bytes: 1 << 30, ..tiny.clone() });
        let app = world.app(&ada.user, "tinyapp").await;
        world.deploy(&app, &["web"]).await;
        let scale =
            |size: &str| ScaleRequest { process_type: "web".to_owned(), quantity: None, size: Some(size.to_owned()) };
        let scaled = controller.scale(&app, &ada, &[scale("Tiny")]).await.expect("scaled");
        assert_eq!(scaled[0].row.size, "tiny");
        let refused = controller.remove_size(&ada, "tiny").await.expect_err("in use").to_string();
        assert!(refused.contains("tiny is that of web of tinyapp"), "{refused}");
        controller.scale(&app, &ada, &[scale("eco")]).await.expect("scaled");
        controller.remove_size(&ada, "tiny").await.expect("removed");
        assert!(controller.sizes().await.expect("sizes").find("tiny").is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_a_size_is_refused() {
        let world = TestController::new().await;
        let ada = world.somebody("ada@example.com").await;
        let mut told = Vec::new();
        let none = SizeRequest { name: Some("mine".to_owned()), ..SizeRequest::default() };
        let large = SizeRequest { cpu_weight: Some(10_001), ..request("mine", 64) };
        for bad in [request("Big One", 64), request("eco", 64), request("mine", 1), none, large] {
            told.push(world.controller.add_size(&ada, &bad).await.expect_err("refused").to_string());
        }
        for which in ["Eco", "nothing"] {
            let refused = world.controller.update_size(&ada, which, &SizeRequest::default()).await;
            told.push(refused.expect_err("refused").to_string());
        }
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn every_size_has_an_id_of_its_own() {
        let sizes = Sizes::built_in();
        let ids: std::collections::BTreeSet<_> = sizes.all().iter().map(|size| &size.id).collect();
        assert_eq!(ids.len(), sizes.all().len());
        assert!(sizes.all().is_sorted_by_key(|size| size.memory_bytes));
    }
}
