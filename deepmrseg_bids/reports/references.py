"""References of methods and of training data, as BibTeX."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BIBTEX", "NAMED"]

_ENTRIES = """\
@misc{doshi2019,
  author = {Doshi, Jimit and Erus, Guray and Habes, Mohamad and Davatzikos, Christos},
  title = {{DeepMRSeg}: A convolutional deep neural network for anatomy and abnormality segmentation on {MR} images},
  year = {2019},
  eprint = {1907.02110},
  archiveprefix = {arXiv}
}
@inproceedings{paszke2019,
  author = {Paszke, Adam and Gross, Sam and Massa, Francisco and others},
  title = {{PyTorch}: An imperative style, high-performance deep learning library},
  booktitle = {Advances in Neural Information Processing Systems 32},
  year = {2019},
  eprint = {1912.01703},
  archiveprefix = {arXiv}
}
@article{avants2008,
  author = {Avants, Brian B. and Epstein, Charles L. and Grossman, Murray and Gee, James C.},
  title = {Symmetric diffeomorphic image registration with cross-correlation: Evaluating automated labeling of elderly and neurodegenerative brain},
  journal = {Medical Image Analysis},
  volume = {12},
  number = {1},
  pages = {26--41},
  year = {2008},
  doi = {10.1016/j.media.2007.06.004}
}
@article{tustison2021,
  author = {Tustison, Nicholas J. and Cook, Philip A. and Holbrook, Andrew J. and others},
  title = {The {ANTsX} ecosystem for quantitative biological and medical imaging},
  journal = {Scientific Reports},
  volume = {11},
  pages = {9068},
  year = {2021},
  doi = {10.1038/s41598-021-87564-6}
}
@article{ciric2022,
  author = {Ciric, Rastko and Thompson, William H. and Lorenz, Romy and others},
  title = {{TemplateFlow}: {FAIR}-sharing of multi-scale, multi-species brain models},
  journal = {Nature Methods},
  volume = {19},
  pages = {1568--1571},
  year = {2022},
  doi = {10.1038/s41592-022-01681-2}
}
@article{marcus2007,
  author = {Marcus, Daniel S. and Wang, Tracy H. and Parker, Jamie and others},
  title = {Open {Access} {Series} of {Imaging} {Studies} ({OASIS}): Cross-sectional {MRI} data in young, middle aged, nondemented, and demented older adults},
  journal = {Journal of Cognitive Neuroscience},
  volume = {19},
  number = {9},
  pages = {1498--1507},
  year = {2007},
  doi = {10.1162/jocn.2007.19.9.1498}
}
@book{landman2012,
  author = {Landman, Bennett A. and Warfield, Simon K.},
  title = {{MICCAI} 2012 Workshop on Multi-Atlas Labeling},
  year = {2012}
}
@misc{simpson2019,
  author = {Simpson, Amber L. and Antonelli, Michela and Bakas, Spyridon and others},
  title = {A large annotated medical image dataset for the development and evaluation of segmentation algorithms},
  year = {2019},
  eprint = {1902.09063},
  archiveprefix = {arXiv}
}
@article{antonelli2022,
  author = {Antonelli, Michela and Reinke, Annika and Bakas, Spyridon and others},
  title = {The {Medical} {Segmentation} {Decathlon}},
  journal = {Nature Communications},
  volume = {13},
  pages = {4128},
  year = {2022},
  doi = {10.1038/s41467-022-30695-9}
}
@article{billot2023,
  author = {Billot, Benjamin and Greve, Douglas N. and Puonti, Oula and others},
  title = {{SynthSeg}: Segmentation of brain {MRI} scans of any contrast and resolution without retraining},
  journal = {Medical Image Analysis},
  volume = {86},
  pages = {102789},
  year = {2023},
  doi = {10.1016/j.media.2023.102789}
}
@article{lesjak2018,
  author = {Lesjak, {\\v Z}iga and Galimzianova, Alfiia and Koren, Ale{\\v s} and others},
  title = {A novel public {MR} image dataset of multiple sclerosis patients with lesion segmentations based on multi-rater consensus},
  journal = {Neuroinformatics},
  volume = {16},
  pages = {51--63},
  year = {2018},
  doi = {10.1007/s12021-017-9348-7}
}
@article{bashyam2025,
  author = {Bashyam, Vishnu M. and Erus, Guray and Cui, Yuhan and others},
  title = {{DLMUSE}: Robust brain segmentation in seconds using deep learning},
  journal = {Radiology: Artificial Intelligence},
  volume = {7},
  number = {6},
  pages = {e240299},
  year = {2025},
  doi = {10.1148/ryai.240299}
}
@article{senrafilho2019,
  author = {Senra Filho, Antonio Carlos da Silva and Simozo, Fabr{\\'i}cio Henrique and dos Santos, Antonio Carlos and Murta Junior, Luiz Otavio},
  title = {Multiple {Sclerosis} multimodal lesion simulation tool ({MS-MIST})},
  journal = {Biomedical Physics \\& Engineering Express},
  volume = {5},
  number = {3},
  pages = {035003},
  year = {2019},
  doi = {10.1088/2057-1976/ab08fc}
}
@misc{dlwmls,
  author = {{Center for Biomedical Image Computing and Analytics, University of Pennsylvania}},
  title = {{DLWMLS}, the segmentation of white-matter lesions of {NiChart}},
  howpublished = {\\url{https://github.com/CBICA/DLWMLS}}
}
@misc{nichart,
  author = {{Center for Biomedical Image Computing and Analytics, University of Pennsylvania}},
  title = {{NiChart}, with clinical heads of older adults},
  howpublished = {\\url{https://neuroimagingchart.com}}
}
@misc{cbica,
  author = {{Center for Biomedical Image Computing and Analytics, University of Pennsylvania}},
  title = {Tutorials, with manual labels of white-matter lesions}
}
@misc{ixi,
  title = {{IXI} Dataset},
  howpublished = {\\url{https://brain-development.org/ixi-dataset/}}
}
"""  # noqa: E501

BIBTEX: Mapping[str, str] = {
    entry.partition("{")[2].partition(",")[0]: "@" + entry for entry in _ENTRIES.split("@")[1:]
}
"""The entry of each key."""

NAMED: Mapping[str, str] = {
    "Landman": "landman2012",
    "Marcus": "marcus2007",
    "Simpson": "simpson2019",
    "Antonelli": "antonelli2022",
    "Billot": "billot2023",
    "Lesjak": "lesjak2018",
    "Bashyam": "bashyam2025",
    "Senra Filho": "senrafilho2019",
    "DLWMLS": "dlwmls",
    "NiChart (clinical heads)": "nichart",
    "CBICA": "cbica",
    "IXI": "ixi",
}
"""The key of a reference that bundles name by its first author or data set."""
