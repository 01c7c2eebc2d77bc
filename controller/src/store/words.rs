//! Enums that stand in `TEXT` columns by their words.

/// An enum whose cases are words: written as such, and read back.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $rule:literal: $($(#[$case_doc:meta])* $case:ident $word:literal;)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$case_doc])* $case,)*
        }

        impl $name {
            /// Every one, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$case,)*];

            /// The word for it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$case => $word,)*
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = model::NameError;

            fn from_str(text: &str) -> Result<Self, model::NameError> {
                match text {
                    $($word => Ok(Self::$case),)*
                    _ => Err(model::NameError($rule.to_owned())),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(super) use words;
