//! The fake model's vectors, computed again from the text: what every answer of a test engine must be.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0) % bound
    }
}

/// As the model of the name `fake` computes it, of unit length.
pub fn unit_vector(text: &str, width: usize) -> Vec<f32> {
    let mut state = "fake".bytes().fold(GOLDEN, |state, byte| mix(state ^ u64::from(byte)));
    state = text.bytes().fold(state, |state, byte| mix(state.wrapping_add(GOLDEN).wrapping_add(u64::from(byte))));
    let raw = (0..width).map(|_| {
        state = state.wrapping_add(GOLDEN);
        (((mix(state) >> 40) | 1) as i64 - (1 << 23)) as f32 / (1 << 23) as f32
    });
    let raw: Vec<f32> = raw.collect();
    let length = raw.iter().map(|float| f64::from(*float).powi(2)).sum::<f64>().sqrt();
    raw.iter().map(|float| (f64::from(*float) / length) as f32).collect()
}

pub fn is_right(text: &str, vector: &[f32]) -> bool {
    let expected = unit_vector(text, vector.len());
    !vector.is_empty() && expected.iter().zip(vector).all(|(a, b)| (a - b).abs() <= 1e-6 + 1e-6 * a.abs())
}
