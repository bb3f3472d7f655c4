//! The caller: which texts it embeds, in which order, and what it does where that fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::embedding_provider::EmbeddingProvider;
use crate::Result;

/// The stand-in for the storage: a concept per content, with or without a vector.
#[derive(Default)]
pub struct Storage {
    concepts: Mutex<HashMap<String, Option<Vec<f32>>>>,
    associations: Mutex<Vec<(String, String)>>,
}

impl Storage {
    fn store(&self, content: &str, vector: Option<Vec<f32>>) {
        self.concepts.lock().unwrap().insert(content.into(), vector);
    }

    pub fn vector_of(&self, content: &str) -> Option<Vec<f32>> {
        self.concepts.lock().unwrap().get(content).cloned().flatten()
    }

    pub fn concepts(&self) -> usize {
        self.concepts.lock().unwrap().len()
    }

    pub fn associations(&self) -> usize {
        self.associations.lock().unwrap().len()
    }

    /// By cosine, as the index does; what has no vector is never found.
    fn nearest(&self, query: &[f32]) -> Option<String> {
        let concepts = self.concepts.lock().unwrap();
        let near = |vector: &[f32]| {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
            dot(query, vector) / (dot(query, query) * dot(vector, vector)).sqrt()
        };
        let found = concepts.iter().filter_map(|(content, vector)| Some((near(vector.as_ref()?), content)));
        found.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, content)| content.clone())
    }
}

pub struct LearningPipeline {
    provider: Arc<dyn EmbeddingProvider>,
    relations: Vec<Option<Vec<f32>>>,
}

const RELATIONS: [&str; 5] = [
    "one thing is the cause of the other",
    "one thing is a part of the other",
    "one thing is a kind of the other",
    "one thing came before the other",
    "one thing is the opposite of the other",
];

impl LearningPipeline {
    pub async fn new_with_provider(provider: Arc<dyn EmbeddingProvider>) -> LearningPipeline {
        let relations: Vec<String> = RELATIONS.iter().map(|text| text.to_string()).collect();
        let relations = provider.generate_batch(&relations, true).await;
        LearningPipeline { provider, relations }
    }

    /// One text, then its sentences. A concept whose text cannot be embedded is stored without a vector.
    pub async fn learn_concept(&self, storage: &Storage, content: &str) -> Result<()> {
        let vector = match self.provider.generate(content, true).await {
            Ok(vector) => Some(vector),
            Err(error) => {
                eprintln!("warning: no vector for a concept: {error}");
                None
            }
        };
        storage.store(content, vector);
        self.extract(storage, content).await;
        Ok(())
    }

    /// All texts, then the sentences of each.
    pub async fn learn_batch(&self, storage: &Storage, contents: &[String]) -> Result<()> {
        let vectors = self.provider.generate_batch(contents, true).await;
        for (content, vector) in contents.iter().zip(vectors) {
            storage.store(content, vector);
            self.extract(storage, content).await;
        }
        Ok(())
    }

    pub async fn search(&self, storage: &Storage, query: &str) -> Result<Option<String>> {
        let vector = self.provider.generate(query, false).await?;
        Ok(storage.nearest(&vector))
    }

    async fn extract(&self, storage: &Storage, content: &str) {
        let sentences = split_sentences(content);
        let vectors = self.provider.generate_batch(&sentences, true).await;
        for (sentence, vector) in sentences.iter().zip(vectors) {
            let relation = vector.zip(self.relations.iter().flatten().next());
            if relation.map_or(false, |(sentence, relation)| sentence.len() == relation.len()) {
                storage.associations.lock().unwrap().push((content.into(), sentence.clone()));
            }
        }
    }
}

pub fn split_sentences(content: &str) -> Vec<String> {
    let pieces = content.split(|c| matches!(c, '.' | '!' | '?')).map(str::trim);
    pieces.filter(|piece| piece.len() > 10).map(str::to_string).collect()
}
