//! The embeddings of one batch.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// `V >= 1` views of one batch: tensors of one shape `(B, D)`, row `i` of each belonging to sample `i`.
#[derive(Clone, Debug)]
pub struct Views(Vec<Tensor>, Option<Vec<LocalMap>>);

/// The local embeddings of one view: those of `P` patches of every sample.
#[derive(Clone, Debug)]
pub struct LocalMap {
    values: Tensor,
    places: Option<Tensor>,
}

impl LocalMap {
    /// Local embeddings `(B, P, D)`, and where known the places `(B, P, C)` of the patches in the original image.
    ///
    /// # Errors
    /// Tensors of another rank, or of unequal batch or number of patches.
    pub fn new(values: Tensor, places: Option<Tensor>) -> Result<Self> {
        let expected = "(batch, patches, dim) with places (batch, patches, coordinates)";
        let wrong = |got: &Tensor| Error::Shape {
            op: "local embeddings".into(),
            expected: expected.into(),
            got: got.dims().to_vec(),
        };
        if values.rank() != 3 || values.elem_count() == 0 {
            return Err(wrong(&values));
        }
        if let Some(places) = &places
            && (places.rank() != 3 || places.dims()[..2] != values.dims()[..2])
        {
            return Err(wrong(places));
        }
        Ok(Self { values, places })
    }

    /// The embeddings, `(B, P, D)`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// The places of the patches, `(B, P, C)`.
    pub fn places(&self) -> Option<&Tensor> {
        self.places.as_ref()
    }
}

impl Views {
    /// Collects views.
    ///
    /// # Errors
    /// No view, a tensor that is not `(B, D)` with `B, D >= 1`, or views of unequal shape, dtype or device.
    pub fn new(views: Vec<Tensor>) -> Result<Self> {
        let Some(first) = views.first() else {
            return Err(Error::config("views", 0, "at least one view is needed"));
        };
        for (i, view) in views.iter().enumerate() {
            if view.rank() != 2 || view.elem_count() == 0 {
                return Err(Error::Shape {
                    op: format!("view {i}"),
                    expected: "a matrix (batch, dim) with at least one row and one column".into(),
                    got: view.dims().to_vec(),
                });
            }
            if view.dims() != first.dims() || view.dtype() != first.dtype() {
                return Err(Error::Mismatch {
                    what: format!("view 0 and view {i}"),
                    left: format!("{:?} {:?}", first.dims(), first.dtype()),
                    right: format!("{:?} {:?}", view.dims(), view.dtype()),
                    hint: "all views of a batch need one shape and one dtype".into(),
                });
            }
            if !view.device().same_device(first.device()) {
                return Err(Error::Mismatch {
                    what: format!("devices of view 0 and view {i}"),
                    left: format!("{:?}", first.device().location()),
                    right: format!("{:?}", view.device().location()),
                    hint: "move all views to one device".into(),
                });
            }
        }
        Ok(Self(views, None))
    }

    /// The same views with their local embeddings, one map a view (VICRegL).
    ///
    /// # Errors
    /// Another number of maps than of views, or another batch.
    pub fn with_local(self, maps: Vec<LocalMap>) -> Result<Self> {
        let batch = self.batch();
        if maps.len() != self.len() || maps.iter().any(|map| map.values.dims()[0] != batch) {
            return Err(Error::Mismatch {
                what: "views and maps of local embeddings".into(),
                left: format!("{} views of batch {batch}", self.len()),
                right: format!("{:?}", maps.iter().map(|map| map.values.dims()).collect::<Vec<_>>()),
                hint: "give one map (batch, patches, dim) a view".into(),
            });
        }
        Ok(Self(self.0, Some(maps)))
    }

    /// The local embeddings, where they were given; [`Views::map`] drops them.
    pub fn local(&self) -> Option<&[LocalMap]> {
        self.1.as_deref()
    }

    /// The usual case of two views.
    pub fn pair(a: Tensor, b: Tensor) -> Result<Self> {
        Self::new(vec![a, b])
    }

    /// Splits a tensor `(V, B, D)` into its views.
    pub fn from_stacked(stacked: &Tensor) -> Result<Self> {
        let (v, _, _) = stacked.dims3()?;
        Self::new((0..v).map(|i| stacked.get(i)).collect::<candle_core::Result<_>>()?)
    }

    /// All views as one tensor `(V, B, D)`.
    pub fn stack(&self) -> Result<Tensor> {
        Ok(Tensor::stack(&self.0, 0)?)
    }

    /// All views below each other, `(V * B, D)`, view by view.
    pub fn cat(&self) -> Result<Tensor> {
        Ok(Tensor::cat(&self.0, 0)?)
    }

    /// The number of views `V`.
    #[allow(clippy::len_without_is_empty)] // There is always one view.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of samples `B`.
    pub fn batch(&self) -> usize {
        self.0[0].dims()[0]
    }

    /// The dimension `D`.
    pub fn dim(&self) -> usize {
        self.0[0].dims()[1]
    }

    /// The dtype of every view.
    pub fn dtype(&self) -> DType {
        self.0[0].dtype()
    }

    /// The device of every view.
    pub fn device(&self) -> &Device {
        self.0[0].device()
    }

    /// The views, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Tensor> {
        self.0.iter()
    }

    /// The views as a slice.
    pub fn as_slice(&self) -> &[Tensor] {
        &self.0
    }

    /// Applies a function to every view.
    pub fn map(&self, f: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Self::new(self.0.iter().map(f).collect::<Result<_>>()?)
    }

    /// The same values without a gradient.
    pub fn detach(&self) -> Self {
        let local = self.1.as_ref().map(|maps| {
            let detached = |map: &LocalMap| LocalMap {
                values: map.values.detach(),
                places: map.places.as_ref().map(Tensor::detach),
            };
            maps.iter().map(detached).collect()
        });
        Self(self.0.iter().map(Tensor::detach).collect(), local)
    }
}

impl std::ops::Index<usize> for Views {
    type Output = Tensor;
    fn index(&self, index: usize) -> &Tensor {
        &self.0[index]
    }
}

/// All that an objective may look at in one step.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// The projector's output: what the invariance and entropy terms act on.
    pub projections: Views,
    /// The predictor's output, for methods that have one (BYOL, SimSiam).
    pub predictions: Option<Views>,
    /// The momentum teacher's projections, without gradient, for methods that have one.
    pub targets: Option<Views>,
    /// The encoder's output before the projector.
    pub features: Option<Views>,
    /// The number of global views, which come first; `None` where views are not told apart.
    pub globals: Option<usize>,
    /// The class of every sample, for terms that are told to look at it; methods without labels never do.
    pub labels: Option<Vec<u32>>,
}

impl Embeddings {
    /// Embeddings that consist of projections only.
    pub fn new(projections: Views) -> Self {
        Self { projections, predictions: None, targets: None, features: None, globals: None, labels: None }
    }

    /// Two views of projections.
    pub fn pair(a: Tensor, b: Tensor) -> Result<Self> {
        Ok(Self::new(Views::pair(a, b)?))
    }

    /// The number of views that count as global: as said, else the first two.
    pub fn globals(&self) -> usize {
        self.globals.unwrap_or(2).min(self.projections.len())
    }

    /// The same values without a gradient.
    pub fn detach(&self) -> Self {
        let detached = |views: &Option<Views>| views.as_ref().map(Views::detach);
        Self {
            projections: self.projections.detach(),
            predictions: detached(&self.predictions),
            targets: detached(&self.targets),
            features: detached(&self.features),
            globals: self.globals,
            labels: self.labels.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ones(shape: &[usize], dtype: DType) -> Tensor {
        Tensor::ones(shape, dtype, &Device::Cpu).unwrap()
    }

    #[test]
    fn refuses_what_does_not_fit_together() {
        assert!(Views::new(vec![]).is_err());
        assert!(Views::new(vec![ones(&[3], DType::F32)]).is_err());
        assert!(Views::new(vec![ones(&[0, 3], DType::F32)]).is_err());
        let message =
            Views::pair(ones(&[4, 3], DType::F32), ones(&[4, 2], DType::F32)).unwrap_err().to_string();
        assert!(message.contains("[4, 3]") && message.contains("[4, 2]"), "{message}");
        assert!(Views::pair(ones(&[4, 3], DType::F32), ones(&[4, 3], DType::F64)).is_err());
    }

    #[test]
    fn local_maps_belong_to_their_views() {
        let views = Views::pair(ones(&[4, 3], DType::F32), ones(&[4, 3], DType::F32)).unwrap();
        assert!(views.local().is_none());
        let map =
            |batch| LocalMap::new(ones(&[batch, 5, 2], DType::F32), Some(ones(&[batch, 5, 2], DType::F32)));
        let with = views.clone().with_local(vec![map(4).unwrap(), map(4).unwrap()]).unwrap();
        assert_eq!(with.detach().local().unwrap()[1].values().dims(), [4, 5, 2]);
        assert!(views.clone().with_local(vec![map(4).unwrap()]).is_err());
        assert!(views.with_local(vec![map(4).unwrap(), map(3).unwrap()]).is_err());
        assert!(LocalMap::new(ones(&[4, 5, 2], DType::F32), Some(ones(&[4, 6, 2], DType::F32))).is_err());
        assert!(LocalMap::new(ones(&[4, 5], DType::F32), None).is_err());
    }

    #[test]
    fn stacks_and_splits() {
        let a = Tensor::arange(0f32, 6., &Device::Cpu).unwrap().reshape((3, 2)).unwrap();
        let views = Views::pair(a.clone(), (a * 2.).unwrap()).unwrap();
        let again = Views::from_stacked(&views.stack().unwrap()).unwrap();
        assert_eq!((again.len(), again.batch(), again.dim()), (2, 3, 2));
        assert_eq!(again[1].to_vec2::<f32>().unwrap(), views[1].to_vec2::<f32>().unwrap());
        assert_eq!(views.cat().unwrap().dims(), [6, 2]);
    }
}
