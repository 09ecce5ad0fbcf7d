//! A test of each column.

use super::{
    NormalityTest, anderson_darling, benjamini_hochberg, dagostino_pearson, epps_pulley, holm, jarque_bera,
    shapiro_wilk,
};
use crate::matrix::Rows;
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use serde::Serialize;

/// A test of one column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColumnTest {
    /// [`dagostino_pearson`].
    #[default]
    DagostinoPearson,
    /// [`jarque_bera`].
    JarqueBera,
    /// [`anderson_darling`].
    AndersonDarling,
    /// [`shapiro_wilk`].
    ShapiroWilk,
    /// [`epps_pulley`].
    EppsPulley,
}

/// The result of [`marginal_normality`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MarginalNormality {
    /// The test.
    pub test: ColumnTest,
    /// The test of each column; `None` for a constant one.
    pub columns: Vec<Option<NormalityTest>>,
    /// The p-values adjusted by Holm; not a number for a constant column.
    pub holm: Vec<f64>,
    /// The p-values adjusted by Benjamini and Hochberg; not a number for a constant column.
    pub benjamini_hochberg: Vec<f64>,
    /// The share of tested columns below `level` by Benjamini and Hochberg.
    pub rejected: f64,
    /// The level of `rejected`.
    pub level: f64,
    /// The columns without spread, which were not tested.
    pub constant: Vec<usize>,
}

/// Tests each column for normality and corrects for their number.
///
/// # Errors
/// Not a matrix, too few rows for the test, values that are not finite, all columns constant, or a level out of
/// range.
pub fn marginal_normality(z: &Tensor, test: ColumnTest, level: f64) -> Result<MarginalNormality> {
    const OP: &str = "marginal_normality";
    if !(level > 0.0 && level < 1.0) {
        let (value, reason) = (level.to_string(), "must be above 0 and below 1");
        return Err(Error::Config { key: "normality.level", value, reason });
    }
    let rows = Rows::read(OP, "z", z)?;
    let apply = match test {
        ColumnTest::DagostinoPearson => dagostino_pearson,
        ColumnTest::JarqueBera => jarque_bera,
        ColumnTest::AndersonDarling => anderson_darling,
        ColumnTest::ShapiroWilk => shapiro_wilk,
        ColumnTest::EppsPulley => epps_pulley,
    };
    let columns: Vec<Option<NormalityTest>> = (0..rows.d)
        .into_par_iter()
        .map(|j| match apply(&rows.column(j)) {
            Ok(test) => Ok(Some(test)),
            Err(Error::Constant { .. }) => Ok(None),
            Err(error) => Err(error),
        })
        .collect::<Result<_>>()?;
    let constant: Vec<usize> = (0..rows.d).filter(|&j| columns[j].is_none()).collect();
    if constant.len() == rows.d {
        return Err(Error::Constant { op: OP, name: "z", columns: constant });
    }
    let p_values: Vec<f64> = columns.iter().map(|c| c.as_ref().map_or(f64::NAN, |t| t.p_value)).collect();
    let benjamini_hochberg = benjamini_hochberg(&p_values);
    let below = benjamini_hochberg.iter().filter(|p| **p < level).count();
    Ok(MarginalNormality {
        test,
        rejected: below as f64 / (rows.d - constant.len()) as f64,
        holm: holm(&p_values),
        benjamini_hochberg,
        columns,
        level,
        constant,
    })
}
