//! Views that are made on the device, of images in its memory, beside those of the host: the same bits.

use crate::compare::{Report, Worst, draw, error, guarded};
use anyhow::{Result, anyhow};
use candle_core::{DType, Device};
use infomax_augment::rand_chacha::ChaCha8Rng;
use infomax_augment::rand_chacha::rand_core::SeedableRng as _;
use infomax_augment::{Augmenter, Recipe, Scratch, ViewParams};
use infomax_data::{Dataset, Renderer as _};
use infomax_run::{DeviceViews, Images, RunConfig};
use std::sync::Arc;

/// Pictures of the embedded data set.
fn pictures(side: usize) -> Result<Arc<dyn Dataset>> {
    let mut config = RunConfig::default().data;
    (config.train_images, config.test_images, config.shapes.size) = (100, 0, side);
    Ok(Images::open(&config)?.train)
}

/// What is drawn for a batch, and its samples.
fn drawn(
    augmenter: &Augmenter,
    view: usize,
    side: usize,
    count: usize,
) -> Result<(Vec<u64>, Vec<ViewParams>)> {
    let mut rng = ChaCha8Rng::seed_from_u64(5 + view as u64);
    let params =
        (0..count).map(|_| Ok(augmenter.draw(view, side, side, &mut rng)?)).collect::<Result<_>>()?;
    Ok(((0..count as u64).map(|i| i * 7 % 100).collect(), params))
}

pub(crate) fn bits(device: &Device, report: &mut Report) -> Result<()> {
    for (preset, side, count) in [
        ("vicreg-shapes", 32, 256),
        ("byol-cifar", 32, 256),
        ("simclr-cifar", 32, 256),
        ("spt-vicreg-cifar", 48, 128),
        ("swav-multicrop-cifar", 32, 64),
        ("simclr-tiny-imagenet", 64, 64),
        ("vicreg-stl10", 96, 64),
    ] {
        let worst = guarded(|| {
            let images = pictures(side)?;
            let augmenter = Augmenter::new(&Recipe::preset(preset)?)?;
            let there = DeviceViews::new(&*images, &augmenter, device).map_err(|reason| anyhow!(reason))?;
            let (mut worst, mut scratch) = (Worst::none(), Scratch::default());
            for view in 0..augmenter.views() {
                let (samples, params) = drawn(&augmenter, view, side, count)?;
                let got = there.render(view, &samples, &params)?.flatten_all()?.to_vec1::<f32>()?;
                let (c, h, w) = augmenter.output(view);
                let mut want = vec![0f32; c * h * w];
                let mut different = 0;
                for ((sample, params), got) in samples.iter().zip(&params).zip(got.chunks_exact(want.len())) {
                    augmenter.render(
                        view,
                        &images.image(*sample as usize)?,
                        params,
                        &mut scratch,
                        &mut want,
                    )?;
                    different += got.iter().zip(&want).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
                }
                worst.take(&format!("values of view {view} that differ"), different as f64);
            }
            Ok(worst)
        });
        report.row(&format!("views on the device, {preset}, {side}x{side}"), worst, 0.0);
    }
    Ok(())
}

/// Views of a batch in a second, on the device and on one thread of the host.
pub(crate) fn times(device: &Device, report: &mut Report) -> Result<()> {
    let side = 32;
    let images = pictures(side)?;
    for preset in ["vicreg-cifar", "simclr-cifar"] {
        let result = guarded(|| {
            let augmenter = Augmenter::new(&Recipe::preset(preset)?)?;
            let there = DeviceViews::new(&*images, &augmenter, device).map_err(|reason| anyhow!(reason))?;
            let (samples, params) = drawn(&augmenter, 0, side, 1024)?;
            let run = || -> Result<()> {
                there.render(0, &samples, &params)?;
                Ok(device.synchronize()?)
            };
            run()?;
            let mut seconds = Vec::new();
            for _ in 0..15 {
                let began = std::time::Instant::now();
                run()?;
                seconds.push(began.elapsed().as_secs_f64());
            }
            seconds.sort_by(f64::total_cmp);
            Ok(1024.0 / seconds[7])
        });
        match result {
            Ok(rate) => println!("TIME views of 32x32 on the device, {preset}: {rate:.0} views/s"),
            Err(error) => report.failed(&format!("time of views, {preset}"), &format!("{error:#}")),
        }
    }
    Ok(())
}

/// Copies through pinned memory beside work of the device: what arrives is what was sent, in any number and of any size.
pub(crate) fn uploads(device: &Device, report: &mut Report) -> Result<()> {
    let worst = guarded(|| {
        let mut uploader = infomax_cuda::Uploader::new(device)?;
        let busy = draw(&[256, 256], 1)?.to_dtype(DType::F32)?.to_device(device)?;
        let (mut worst, mut begun) = (Worst::none(), std::collections::VecDeque::new());
        for step in 0..12u64 {
            let sizes: [&[usize]; 3] = [&[1 + 37 * step as usize, 3, 5], &[4096], &[1]];
            let sent = sizes
                .iter()
                .enumerate()
                .map(|(i, s)| Ok(draw(s, 40 * step + i as u64)?.to_dtype(DType::F32)?));
            let sent = sent.collect::<Result<Vec<_>>>()?;
            begun.push_back((uploader.begin(&sent)?, sent));
            // Work before and after each copy, and memory that changes hands.
            (0..4).try_for_each(|_| busy.matmul(&busy).map(drop))?;
            // A copy that nobody takes.
            drop(uploader.begin(&[draw(&[1000], step)?.to_dtype(DType::F32)?])?);
            if step % 2 == 1 {
                while let Some((copy, sent)) = begun.pop_front() {
                    for (i, (got, sent)) in copy.finish()?.iter().zip(&sent).enumerate() {
                        worst.take(
                            &format!("tensor {i} of copy {step}"),
                            error(got, &sent.to_dtype(DType::F64)?)?,
                        );
                    }
                }
            }
        }
        Ok(worst)
    });
    report.row("copies through pinned memory", worst, 0.0);
    Ok(())
}
