//! Where a layer's parameters go, and whether they are trained.

use crate::Result;
use candle_core::{Shape, Var};
use infomax_core::{Init, ParamBuilder, ParamKind};

/// A [`ParamBuilder`] that can freeze what is added through it.
///
/// The layers of a momentum teacher are the student's own types: a frozen scope registers all of their
/// parameters as [`ParamKind::Buffer`], so that they are saved and never trained.
#[derive(Clone, Debug)]
pub struct Scope {
    builder: ParamBuilder,
    frozen: bool,
}

impl Scope {
    /// A scope whose parameters are buffers, whatever their layer says.
    pub fn frozen(builder: ParamBuilder) -> Self {
        Self { builder, frozen: true }
    }

    /// The scope `name` below this one.
    pub fn pp(&self, name: impl ToString) -> Self {
        Self { builder: self.builder.pp(name), frozen: self.frozen }
    }

    /// Adds a parameter.
    ///
    /// # Errors
    /// A name that is taken already.
    pub fn get(&self, name: &str, shape: impl Into<Shape>, kind: ParamKind, init: Init) -> Result<Var> {
        let kind = if self.frozen { ParamKind::Buffer } else { kind };
        Ok(self.builder.get(name, shape, kind, init)?)
    }

    /// The full name of `name` in this scope.
    pub fn path(&self, name: &str) -> String {
        self.builder.path(name)
    }

    /// The full name of this scope, for messages; `model` at the root.
    pub(crate) fn name(&self) -> String {
        match self.path("").trim_end_matches('.') {
            "" => "model".to_owned(),
            name => name.to_owned(),
        }
    }
}

impl From<ParamBuilder> for Scope {
    fn from(builder: ParamBuilder) -> Self {
        Self { builder, frozen: false }
    }
}

impl From<&ParamBuilder> for Scope {
    fn from(builder: &ParamBuilder) -> Self {
        builder.clone().into()
    }
}

impl From<&Scope> for Scope {
    fn from(scope: &Scope) -> Self {
        scope.clone()
    }
}
