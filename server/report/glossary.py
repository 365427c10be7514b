"""What each number means: shown on hover and focus, and printed at the end of the page."""

from __future__ import annotations

__all__ = ["GLOSSARY", "OF_TWO_MODELS", "Term"]

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """A name as the page writes it, and its definition."""

    name: str
    meaning: str


GLOSSARY = {
    "auc": Term(
        "AUC",
        "Area under the ROC curve: the chance that a random case of the positive class scores higher than a "
        "random other case. .5 is chance, 1 is perfect. With more than two classes, the mean over classes, each "
        "against the rest.",
    ),
    "interval": Term(
        "95 % interval",
        "Covers the sampling of patients; several images of one patient count as one draw. With several seeds "
        "(for local, several models) the bounds shown are the means of their bounds: the interval of a typical "
        "single model.",
    ),
    "seeds": Term(
        "Seeds",
        "Training repeated with other initial weights, order and augmentation; the split of patients stays. "
        "Numbers are means over the seeds in which they exist; light dots are single seeds (for local, single "
        "models and seeds).",
    ),
    "worst": Term(
        "Worst center",
        "The center at which the leading arm (federated where there is one) has its lowest AUC.",
    ),
    "federated": Term(
        "Federated",
        "Each center trains on its own patients and sends changes of weights; no image leaves a center.",
    ),
    "pooled": Term(
        "Pooled",
        "One model trained on all training centers' images put together: what sharing data would give.",
    ),
    "local": Term(
        "Local",
        "Models trained in one hospital each. In-federation: the hospital's own model. Leave-one-center-out: the "
        "mean AUC of the other hospitals' models.",
    ),
    "ensemble": Term(
        "Ensemble",
        "The mean of the local models' probabilities; with K hospitals it costs K times the budget of one model.",
    ),
    "artificial": Term(
        "Artificial site",
        "Cut from one center's patients for an experiment, not a real center: machines, people and practice are the "
        "same at all of them, so results say little about a center that differs.",
    ),
    "unseen": Term(
        "Leave-one-center-out",
        "Each center in turn is kept out of training, of model choice and of the threshold, then all its patients "
        "are the test.",
    ),
    "inside": Term(
        "In-federation",
        "Trained on the training centers' train patients, threshold set on their validation patients, tested on "
        "their test patients. A center marked as held out gave no patient to training.",
    ),
    "mean": Term(
        "Mean of centers",
        "The mean of the centers' AUCs. In leave-one-center-out each center has a model of its own, and scores of "
        "different models are never put together.",
    ),
    "together": Term(
        "All cases together",
        "One AUC over the test cases of all centers; not the mean of the centers' AUCs. For local, the mean over "
        "the hospitals' models, each on all cases.",
    ),
    "delta": Term(
        "Difference of AUC",
        "Federated minus the other arm, mean over seeds. The interval draws patients (once for all arms) and "
        "seeds anew. An interval that holds 0 means: no difference that these data can show. It does not mean: "
        "equal. Borderline: the interval leaves 0 out, but p is .05 or more.",
    ),
    "p": Term(
        "p",
        "How often a difference at least this large would be seen if the arms were equal. Not corrected for "
        "several tests.",
    ),
    "patient_auc": Term(
        "AUC by patient",
        "AUC after the scores of each patient's images are averaged.",
    ),
    "threshold": Term(
        "Locked threshold",
        "The score above which a case is called positive: set once where the training centers' pooled validation "
        "patients reach the wanted sensitivity, then never changed.",
    ),
    "sensitivity": Term(
        "Sensitivity",
        "Share of positive cases that the model calls positive at the locked threshold.",
    ),
    "specificity": Term(
        "Specificity",
        "Share of the other cases that the model calls negative at the locked threshold.",
    ),
    "brier": Term(
        "Brier score",
        "Mean squared difference of probability and outcome. 0 is perfect; lower is better.",
    ),
    "ece": Term(
        "ECE",
        "Expected calibration error: mean distance between probability and observed share over 15 equal-width "
        "bins, weighted by cases. 0 is perfect. A single center's is exact. That of all cases from sums is of coarser "
        "bins, where centers merge them until each class in one has patients enough: it can only be smaller.",
    ),
    "slope": Term(
        "Calibration slope",
        "1 is right; below 1 the probabilities are too extreme, above 1 not extreme enough. Cox 1958. The 95 % "
        "interval of a center counts the images of a patient as one draw: the sandwich of Liang and Zeger 1986, and t "
        "with the patients of the rarer class.",
    ),
    "intercept": Term(
        "Calibration intercept",
        "With the slope fixed at 1: 0 is right; below 0 the probabilities are too high on average, above 0 too low. "
        "Interval as for the slope.",
    ),
    "roc": Term(
        "ROC curve",
        "Sensitivity against 1 − specificity over all thresholds, mean over seeds. The marker is the locked "
        "threshold; the dotted diagonal is chance.",
    ),
    "calibration": Term(
        "Calibration curve",
        "Cases in ten equal-width bins of probability: mean probability against the observed share of positives. "
        "On the dotted diagonal the probabilities are true. Larger dots hold more cases.",
    ),
    "cell_interval": Term(
        "Interval of a calibration point",
        "Wilson's 95 % interval of the observed share. The number of trials is the number of patients in the cell, not "
        "of images, and the mean over seeds.",
    ),
    "benefit": Term(
        "Net benefit",
        "TP/N − FP/N × t/(1 − t) at the threshold probability t, mean over seeds: true positives, less false ones at "
        "the price that t puts on them. A model is of use where its line is above both calling every case positive "
        "and calling none (0). Counts images. Vickers and Elkin 2006.",
    ),
    "benefit_band": Term(
        "Interval of net benefit",
        "At each threshold probability alone, patients drawn with all their images: the variance of a ratio from "
        "clusters (Cochran 1977), and t. With several seeds that of a typical single model. A center that tells its "
        "curve itself keeps thresholds back between which too few of its patients lie: its line goes from mark to "
        "mark. The band says nothing of the difference of two lines, which move together.",
    ),
    "meta": Term(
        "Random-effects mean",
        "What centers like these have on average, from a meta-analysis of the left-out centers on the logit of AUC or "
        "the logarithm of O/E. Centers may truly differ. Each center's value is the mean over seeds (for local, over "
        "the other centers' models too). It is not the mean of centers' AUCs above. The centers' models share training "
        "patients, which is not modelled. Viechtbauer 2005; Snell et al. 2018.",
    ),
    "meta_interval": Term(
        "Interval of the random-effects mean",
        "Hartung–Knapp–Sidik–Jonkman: heeds that the spread between few centers is itself uncertain, so with three "
        "centers it is wide.",
    ),
    "prediction": Term(
        "95 % prediction interval",
        "Where the true value of a further center, like these, would lie. From the mean, its error and τ, with k − 2 "
        "degrees of freedom for k centers: none with two centers, and hardly informative below five. With few centers "
        "whose spread is near their own errors it covers less than it says: 89 % of new centers in simulation with "
        "six. Higgins et al. 2009; Partlett and Riley 2017.",
    ),
    "tau": Term(
        "τ",
        "Standard deviation of the true values between centers, by restricted maximum likelihood, on the scale of the "
        "analysis: the logit of AUC, or the logarithm of O/E. 0 is no difference beyond chance.",
    ),
    "i2": Term(
        "I²",
        "Share of the spread between centers that is more than chance. 0 % with few small centers does not prove that "
        "centers are alike.",
    ),
    "assumed_spread": Term(
        "Assumed spread",
        "The same centers, with the spread between centers set to .055 on the AUC scale: the mean over 469 prognostic "
        "models in cardiovascular disease with 1,603 external validations (van Leeuwen et al., Stat Med 2025; 44: "
        "e70011). Carried to the logit by τ / (AUC (1 − AUC)). Shown below ten centers, where the data say little "
        "about τ.",
    ),
    "oe": Term(
        "O/E",
        "Observed positives over expected ones (the sum of probabilities). 1 is right on average; above 1 "
        "probabilities are too low, below 1 too high.",
    ),
    "from_sums": Term(
        "AUC from sums",
        "Of all sites' test cases in one ranking, from score histograms and sums over patients that the sites send; no "
        "prediction leaves a site. Interval after Obuchowski 1997, by patient. In a simulation the exact AUC stands "
        "beside.",
    ),
    "bound": Term(
        "Largest error",
        "The AUC from sums is within this of the exact one: half the share of pairs of a positive and another case "
        "that fall into one bin, or into cells that overlap. The true error is usually far smaller. Where it is larger "
        "than half the interval, because centers are small for the cells that their policies allow, no interval is "
        "shown.",
    ),
    "mean_of_sites": Term(
        "Mean of the sites' AUCs",
        "Each site's own AUC, exact, and their mean. Cases of two sites are never ranked against each other, so it is "
        "another thing than the AUC of all cases.",
    ),
    "paired_sums": Term(
        "From sums",
        "The clustered paired test of the two models (DeLong et al. 1988; Obuchowski 1997) from sums over patients, "
        "for the mean over seeds as they are; the columns before draw patients and seeds anew.",
    ),
    "acquisition": Term(
        "Acquisition",
        "Gray levels, texture and resolution of the tissue beside the lesion, each over the share of classes that all "
        "centers have. p is adjusted for all centers and axes together (Westfall and Young 1993).",
    ),
    "prevalence": Term(
        "Prevalence",
        "The share of each class among the center's patients. p is adjusted for all centers and axes together.",
    ),
    "case_mix": Term(
        "Case mix",
        "The model's features, less what acquisition explains, over equal shares of classes. p is adjusted for all "
        "centers and axes together. Not judged where acquisition differs, which moves the features too.",
    ),
    "discrepancy": Term(
        "Feature discrepancy",
        "Squared maximum mean discrepancy of the features by random Fourier features. Chance alone keeps it above 0, "
        "so it stands beside the value that 95 % of draws without shift stay below; p of case mix tests it, adjusted "
        "for all centers and axes. Gretton et al. 2012.",
    ),
    "descriptor": Term(
        "Descriptor of the tissue",
        "One of the three that differ most. The mean over this center's patients, in the tissue beside the lesion and "
        "over the share of classes that all centers have, less that of the centers of reference; in standard "
        "deviations of patients (SD). z is the same difference over its standard error: beyond ±2 a single one would "
        "be unusual, but these are the largest of many, so the verdict goes by p of acquisition.",
    ),
    "class_share": Term(
        "Share of a class",
        "Of the center's patients, and of those of the centers of reference (elsewhere), by number of patients. p of "
        "prevalence tests the differences.",
    ),
    "two_sample": Term(
        "Classifier between centers",
        "A linear classifier of the features learns from half of the patients to tell this center's from the others' "
        "and is tested on the other half. AUC .5: it cannot. p alone, not adjusted. Lopez-Paz and Oquab 2017.",
    ),
    "frechet": Term(
        "Fréchet distance",
        "Between normal laws of the features here and elsewhere. It is never 0, so it stands beside the value that 95 "
        "% of draws without shift stay below. p alone, not adjusted.",
    ),
    "verdict": Term(
        "Verdict",
        "What differs at 5 %, one error rate for all centers and causes: of panels without any shift, one in twenty "
        "names one. The center that differs most is taken out before the others are judged.",
    ),
    "repair": Term(
        "Repair without labels",
        "What a center that did not train could change by itself before the model is used there, without a single "
        "label; labels were used only to judge it. One model (the first seed). It stands beside the unrepaired result, "
        "is in no other table, and choosing the best of them by these numbers would be choosing on the test.",
    ),
    "unrepaired": Term(
        "Unrepaired",
        "The model's answers as they are: the same numbers as in the tables above, for this one seed.",
    ),
    "intensity_repair": Term(
        "Intensity harmonised",
        "One increasing gray curve for all of the center's pictures gives the tissue beside its lesions the training "
        "centers' gray levels, which these tell as counts of pixels.",
    ),
    "amplitude_repair": Term(
        "Amplitude harmonised",
        "The center's mean amplitudes at low spatial frequencies become the training centers'; phases stay. After Yang "
        "and Soatto 2020.",
    ),
    "batch_repair": Term(
        "Batch statistics adapted",
        "The means and variances of the model's batch normalisation are those of the center's own pictures; weights "
        "stay. Li et al. 2016. Only for models that have such layers.",
    ),
    "prior_repair": Term(
        "Prior recalibrated",
        "Probabilities are carried to the prevalence that the answers themselves imply, by expectation maximisation "
        "(Saerens et al. 2002). It mends calibration where prevalence alone differs; with two classes no AUC moves.",
    ),
    "implied_prior": Term(
        "Implied prevalence",
        "The share of the positive class that the answers imply without labels; under it the share that was observed, "
        "counted by image.",
    ),
    "repair_delta": Term(
        "Change of AUC",
        "AUC after the repair less the unrepaired one, with the 95 % interval and p of the paired test of both on the "
        "same patients (DeLong et al. 1988; Obuchowski 1997). Not corrected for the number of repairs.",
    ),
    "subgroup": Term(
        "Group of patients",
        "Patients of a center with one value of a covariate; numbers are cut at the center's median. A group of fewer "
        "patients than the center's policy lets out is joined with others, and a number that rests on fewer than five "
        "patients of a class, or than the policy lets out, is a dash. Where a center tells its groups itself, so are "
        "decisions about as few, and numbers of another group from which those would follow. Numbers are means over "
        "seeds, intervals as for AUC, not corrected for the number of groups.",
    ),
    "shared_patients": Term(
        "Shares patients",
        "Some patients are in another group of this covariate too, as those with images of both sides are, so the "
        "groups are not independent and their patients add up to more than the center has.",
    ),
    "tripod": Term(
        "TRIPOD+AI",
        "What a report on a prediction model must state, by Collins et al. 2024. Items are in our words.",
    ),
    "patients": Term(
        "Patients",
        "How many different patients were tested, under it their images. Intervals count patients, not images. Of "
        "groups, the last number is that of images of the positive class; a dash where the group is too small to tell "
        "it.",
    ),
    "images": Term(
        "Images",
        "How many images of these patients were tested: each is one case of AUC, sensitivity and specificity.",
    ),
    "centers": Term(
        "Centers",
        "How many centers were tested; in the meta-analysis, those that have a value: "
        "one without is left out and named.",
    ),
    "exact_auc": Term(
        "Exact AUC",
        "From every prediction of all centers in one ranking, which only a simulation has. A dash where no prediction "
        "left a site.",
    ),
    "noise": Term(
        "Noise σ",
        "Standard deviation of the noise on each step's sum of gradients, in units of the norm to which they were "
        "clipped. More noise, smaller ε.",
    ),
    "rate": Term(
        "Rate",
        "The chance of each patient (or image, or hospital, as the unit is) to take part in a step, "
        "drawn anew for each.",
    ),
    "steps": Term(
        "Steps",
        "How many noised steps the model took at this site; each costs privacy.",
    ),
    "ledger": Term(
        "Ledger, all runs",
        "ε of everything that the site ever released, by its own ledger after this run, of the cap that it allows. A "
        "dash where the site told none.",
    ),
    "against_federated": Term(
        "Against federated",
        "The arm's sample gradients, of all its models together, over those of the federated arm.",
    ),
    "time": Term(
        "Time",
        "Seconds of training of the arm's models by the clock, added up; other work on the machine makes it longer.",
    ),
    "round": Term(
        "Round",
        "The round of training in which the site failed; a dash outside of rounds.",
    ),
    "matrix": Term(
        "Center-to-center matrix",
        "AUC of models trained at the row, tested at the column. Off the diagonal: all patients of a center that "
        "the model never saw. On the diagonal (framed): the center's own test patients.",
    ),
    "budget": Term(
        "Sample gradients",
        "How many times an image's gradient enters an optimizer step. Each final model gets the same number in "
        "every arm; the ensemble is several local models and costs their sum.",
    ),
    "epsilon": Term(
        "ε, the privacy spent",
        "However much somebody knows, seeing all that the run let out changes the odds that a given patient took part "
        "by a factor of at most e to the ε, except with probability δ. Smaller is safer; at 1 it is a factor of 2.7.",
    ),
    "privacy_delta": Term(
        "δ",
        "How probable it may be that ε does not hold: 1 over ten times the site's declared number of patients.",
    ),
    "looks": Term(
        "Looks at held-out results",
        "How often results on these held-out patients were seen before this run. Every look can lead to choices "
        "that fit them by chance.",
    ),
    "attention": Term(
        "Attention map",
        "Where the model's spatial attention is strong, drawn over the crop that it sees. It shows where the "
        "model looks, not why it decides.",
    ),
    "descriptors": Term(
        "Intensity and texture",
        "Descriptors of the lesion crops: dots are means over a center's images, lines one standard deviation "
        "either way. Speckle length is the lag in pixels at which the residual's autocorrelation falls to one "
        "half.",
    ),
}

OF_TWO_MODELS: dict[str, Term] = {
    "delta": Term(
        "Difference of AUC",
        "The AUC of the checkpoint minus that of the other model, on the same cases. Interval and p are of the "
        "clustered paired test (DeLong et al. 1988; Obuchowski 1997), exact at each center. An interval that holds 0 "
        "means: no difference that these data can show. It does not mean: equal.",
    ),
    "paired_sums": Term(
        "From sums",
        "The difference over all sites' test cases in one ranking, from score histograms and sums over patients; no "
        "prediction leaves a site. It is off the exact one by at most what stands after ±; where that is more than "
        "half the interval, no interval is shown.",
    ),
}
"""What two of the terms mean where a deployment compared two models."""
